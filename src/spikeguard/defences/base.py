"""Objective = perturbation + terms + constraints, combined with ``|``.

A *piece* is a frozen dataclass that derives from :class:`Piece` and has one or more of

* ``perturb(model, x, y, generator) -> x'``: the batch that is trained on instead of the clean one,
* ``term(clean, perturbed, y, progress) -> loss``: a scalar added to the cross-entropy,
* ``constrain(model)``: a change of the weights after each optimiser step.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeguard.neurons import Trace, record
from spikeguard.rng import stream

__all__ = ["Objective", "Outcome", "Pass", "Piece", "Vanilla"]


@dataclass(frozen=True)
class Pass:
    """One forward pass in training mode.

    Attributes:
        x: The images the model saw [B, ...].
        logits: What it answered [B, K].
        trace: Potentials and spikes of every spiking layer; None where no term asks for them.
    """

    x: Tensor
    logits: Tensor
    trace: Trace | None


@dataclass(frozen=True)
class Outcome:
    """What an objective makes of one batch.

    Attributes:
        losses: Scalar loss of every term, weights included; "cross_entropy" comes first.
        seen: The forward pass the losses were taken on.
    """

    losses: dict[str, Tensor]
    seen: Pass

    @property
    def total(self) -> Tensor:
        """The sum of the losses: what is differentiated."""
        return torch.stack([loss.float() for loss in self.losses.values()]).sum()


class Piece:
    """A part of an objective; ``a | b`` combines two.

    Attributes:
        name: Names the piece in recipes, its loss in the metrics and its random stream.
        needs_trace: The term reads membrane potentials, so the pass is recorded.
    """

    name: ClassVar[str]
    needs_trace: ClassVar[bool] = False

    def __or__(self, other: Piece | Objective) -> Objective:
        return Objective((self,)) | other


@runtime_checkable
class _Perturbs(Protocol):
    name: ClassVar[str]

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images to train on, shaped like ``x``."""


@runtime_checkable
class _AddsTerm(Protocol):
    name: ClassVar[str]

    def term(
        self, clean: Pass | None, perturbed: Pass | None, y: Tensor, progress: float
    ) -> Tensor:
        """Return a scalar loss, its weight included."""


@runtime_checkable
class _Constrains(Protocol):
    def constrain(self, model: nn.Module) -> None:
        """Change the weights in place; runs without gradients."""


@dataclass(frozen=True)
class Vanilla(Piece):
    """Plain training: cross-entropy on the clean images; ``Vanilla() | x`` is ``x``."""

    name: ClassVar[str] = "vanilla"


@dataclass(frozen=True, repr=False)
class Objective:
    """What one training step minimises: cross-entropy + the terms of the pieces.

    The cross-entropy, and every term, is taken on the perturbed batch where there is a perturbation
    and on the clean batch otherwise. The order of the pieces does not matter.

    Args:
        pieces: At most one of them perturbs; none is vanilla training.

    Raises:
        ValueError: If two pieces perturb, two have one name, or something is no piece.

    Example:
        >>> from spikeguard.defences import AT, TGO
        >>> AT(eps=2 / 255, steps=2) | TGO(lambda_max=0.4)   # doctest: +ELLIPSIS
        AT(eps=0.0078..., steps=2, ...) | TGO(lambda_max=0.4, ...)
    """

    pieces: tuple[Piece, ...] = ()

    def __post_init__(self) -> None:
        for piece in self.pieces:
            if not isinstance(piece, Piece):
                raise ValueError(
                    f"Objective: combines defences such as AT(eps=0.1) | TGO(), got {piece!r}."
                )
        kept = tuple(piece for piece in self.pieces if not isinstance(piece, Vanilla))
        object.__setattr__(self, "pieces", kept)
        names = [piece.name for piece in kept]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Objective: {twice[0]!r} occurs twice; keep one of them.")
        perturbing = [repr(piece) for piece in kept if isinstance(piece, _Perturbs)]
        if len(perturbing) > 1:
            raise ValueError(
                f"Objective: a batch is perturbed once, got {' and '.join(perturbing)}; keep one."
            )

    @classmethod
    def of(cls, objective: Objective | Piece) -> Objective:
        """Return an objective for a single piece; an objective is returned as it is."""
        return objective if isinstance(objective, Objective) else cls((objective,))

    def __or__(self, other: Piece | Objective) -> Objective:
        return Objective(self.pieces + Objective.of(other).pieces)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.pieces)) or "Vanilla()"

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        progress: float,
        generator: torch.Generator,
    ) -> Outcome:
        """Perturb a batch, run the model on it and return its losses.

        Args:
            model: In training mode; a perturbation is crafted in evaluation mode.
            x: Images [B, ...] in [0, 1].
            y: Labels [B].
            progress: Share of the training that is over, in [0, 1].
            generator: Every piece draws from a stream of its own that is seeded from this one.

        Raises:
            ValueError: If progress is outside [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"Objective: progress is a share in [0, 1], got {progress:g}.")
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        shown = x
        perturbing = next((p for p in self.pieces if isinstance(p, _Perturbs)), None)
        if perturbing is not None:
            shown = perturbing.perturb(model, x, y, stream(seed, perturbing.name)).detach()
        recorded = any(piece.needs_trace for piece in self.pieces)
        with record(model) if recorded else nullcontext() as trace:
            logits = model(shown)
        seen = Pass(shown, logits, trace)
        clean, perturbed = (seen, None) if perturbing is None else (None, seen)
        losses = {"cross_entropy": functional.cross_entropy(logits.float(), y)}
        for piece in sorted(self.pieces, key=lambda piece: piece.name):
            if isinstance(piece, _AddsTerm):
                losses[piece.name] = piece.term(clean, perturbed, y, progress)
        return Outcome(losses, seen)

    def losses(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        progress: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return the losses alone, "cross_entropy" first; the training loss is their sum."""
        return self(model, x, y, progress=progress, generator=generator).losses

    @torch.no_grad()
    def constrain(self, model: nn.Module) -> None:
        """Let the pieces that constrain the weights do so; called after every optimiser step."""
        for piece in sorted(self.pieces, key=lambda piece: piece.name):
            if isinstance(piece, _Constrains):
                piece.constrain(model)
