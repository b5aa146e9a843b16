"""Objective = perturbation + terms + constraints, combined with ``|``.

A *piece* is a frozen dataclass that derives from :class:`Piece` and has one or more of

* ``perturb(model, x, y, generator) -> x'``: the batch that is trained on instead of the clean one,
* ``term(step) -> loss``: a scalar added to the cross-entropy,
* ``constrain(model, progress, generator)``: a change of the weights after each optimiser step,
* ``clean_share``: how much of the cross-entropy is taken on the clean batch,
* ``frozen(model, progress)``: the parameters that a step leaves alone,
* ``require(model, options)``: a refusal, before the training, of what it cannot work with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeguard.neurons import Trace, record
from spikeguard.rng import stream

__all__ = ["Objective", "Outcome", "Pass", "Piece", "Step", "Vanilla"]


@dataclass(frozen=True)
class Pass:
    """One forward pass in training mode.

    Attributes:
        x: The images the model saw [B, ...], or [T, B, ...] where every step has its own.
        logits: What it answered [B, K].
        trace: Potentials and spikes of every spiking layer; None where no term asks for them.
    """

    x: Tensor
    logits: Tensor
    trace: Trace | None


@dataclass(frozen=True)
class Step:
    """What a term looks at.

    Attributes:
        model: The network, in training mode.
        clean: The pass on the clean batch; None where a piece perturbs and none needs it.
        perturbed: The pass on the perturbed batch; None where no piece perturbs.
        y: Labels [B].
        progress: Share of the training that is over, in [0, 1].
        generator: The piece's own random stream.
    """

    model: nn.Module
    clean: Pass | None
    perturbed: Pass | None
    y: Tensor
    progress: float
    generator: torch.Generator

    @property
    def seen(self) -> Pass:
        """The pass that is trained on: the perturbed one where there is one."""
        seen = self.perturbed if self.perturbed is not None else self.clean
        assert seen is not None
        return seen

    @property
    def both(self) -> tuple[Pass, Pass]:
        """The clean and the perturbed pass, for a piece that ``needs_clean`` and perturbation."""
        assert self.clean is not None and self.perturbed is not None
        return self.clean, self.perturbed


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
        needs_trace: The term reads membrane potentials, so the passes are recorded.
        needs_clean: The term reads the clean pass even where another piece perturbs.
        needs_perturbed: The term compares with a perturbed pass; without one it is refused.
        clean_share: Share of the cross-entropy taken on the clean batch where a piece perturbs, in
            [0, 1]; None leaves it to the others, and 0 if all do.
        needs_input_gradient: The term differentiates logits in ``Pass.x``.
    """

    name: ClassVar[str]
    needs_trace: ClassVar[bool] = False
    needs_clean: ClassVar[bool] = False
    needs_perturbed: ClassVar[bool] = False

    @property
    def idle(self) -> bool:
        """Whether its weight is 0 and the training is that without the piece."""
        return False

    @property
    def clean_share(self) -> float | None:
        """Share of the cross-entropy taken on the clean batch."""
        return None

    @property
    def needs_input_gradient(self) -> bool:
        """Whether the term differentiates a pass in its images."""
        return False

    def frozen(self, model: nn.Module, progress: float) -> Iterable[nn.Parameter]:
        """Return the parameters that are not trained at this progress."""
        return ()

    def require(self, model: nn.Module, options: object) -> None:
        """Raise ValueError if the piece cannot work with a model or with the training options."""

    def __or__(self, other: Piece | Objective) -> Objective:
        return Objective((self,)) | other


@runtime_checkable
class _Perturbs(Protocol):
    name: ClassVar[str]

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images to train on, like ``x`` [B, ...] or one for each step [T, B, ...]."""


@runtime_checkable
class _AddsTerm(Protocol):
    name: ClassVar[str]

    def term(self, step: Step) -> Tensor:
        """Return a scalar loss, its weight included."""


@runtime_checkable
class _Constrains(Protocol):
    def constrain(self, model: nn.Module, progress: float, generator: torch.Generator) -> None:
        """Change the weights in place; runs without gradients."""


@dataclass(frozen=True)
class Vanilla(Piece):
    """Plain training: cross-entropy on the clean images; ``Vanilla() | x`` is ``x``."""

    name: ClassVar[str] = "vanilla"


@dataclass(frozen=True, repr=False)
class Objective:
    """What one training step minimises: cross-entropy + the terms of the pieces.

    The cross-entropy, and every term, is taken on the perturbed batch where there is a perturbation
    and on the clean batch otherwise; a piece with a ``clean_share`` c makes the cross-entropy
    c CE(clean) + (1 - c) CE(perturbed). Where a term compares the two, both run, the clean batch
    first. The order of the pieces does not matter.

    Args:
        pieces: At most one of them perturbs; none is vanilla training.

    Raises:
        ValueError: If two pieces perturb, two have one name or different shares of the clean batch,
            or something is no piece.

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
        shares = {p.name: p.clean_share for p in kept if p.clean_share is not None}
        if len(set(shares.values())) > 1:
            told = " and ".join(f"{name} {share:g}" for name, share in shares.items())
            raise ValueError(f"Objective: the clean batch has one share of the loss, got {told}.")

    @classmethod
    def of(cls, objective: Objective | Piece) -> Objective:
        """Return an objective for a single piece; an objective is returned as it is."""
        return objective if isinstance(objective, Objective) else cls((objective,))

    def __or__(self, other: Piece | Objective) -> Objective:
        return Objective(self.pieces + Objective.of(other).pieces)

    def require(self, model: nn.Module, options: object) -> None:
        """Refuse, before the training, what cannot work together.

        Args:
            model: What is to be trained.
            options: The ``TrainOptions``.

        Raises:
            ValueError: If a piece needs a perturbed batch and none perturbs, or a piece refuses the
                model or the options.
        """
        for piece in self.pieces:
            if piece.needs_perturbed and self._perturbing is None:
                raise ValueError(
                    f"Objective: {piece.name} compares the clean pass with a perturbed one; add "
                    "what perturbs, such as at or gaussian."
                )
            piece.require(model, options)

    @property
    def _perturbing(self) -> _Perturbs | None:
        return next((p for p in self._active if isinstance(p, _Perturbs)), None)

    @property
    def _active(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if not piece.idle)

    @property
    def clean_share(self) -> float:
        """Share of the cross-entropy that is taken on the clean batch."""
        if self._perturbing is None:
            return 1.0
        return next((p.clean_share for p in self._active if p.clean_share is not None), 0.0)

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
        perturbing, share = self._perturbing, self.clean_share
        shown = clean = perturbed = None
        if perturbing is not None:
            shown = perturbing.perturb(model, x, y, stream(seed, perturbing.name)).detach()
        with _constant(p for piece in self.pieces for p in piece.frozen(model, progress)):
            if share > 0 or any(piece.needs_clean for piece in self._active):
                clean = self._pass(model, x)
            if shown is not None:
                perturbed = self._pass(model, shown)
            losses = {"cross_entropy": _cross_entropy(clean, perturbed, share, y)}
            for piece in sorted(self._active, key=lambda piece: piece.name):
                if isinstance(piece, _AddsTerm):
                    own = stream(seed, piece.name, "term")
                    losses[piece.name] = piece.term(Step(model, clean, perturbed, y, progress, own))
        seen = perturbed if perturbed is not None else clean
        assert seen is not None
        return Outcome(losses, seen)

    def _pass(self, model: nn.Module, x: Tensor) -> Pass:
        """Run the model on a batch, recorded where a term asks for it."""
        if any(piece.needs_input_gradient for piece in self._active):
            x = x.detach().requires_grad_()
        recorded = any(piece.needs_trace for piece in self._active)
        with record(model) if recorded else nullcontext() as trace:
            return Pass(x, model(x), trace)

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
    def constrain(self, model: nn.Module, progress: float, generator: torch.Generator) -> None:
        """Let the pieces that constrain the weights do so; called after every optimiser step.

        Args:
            model: Its weights are changed in place.
            progress: Share of the training that is over, in [0, 1].
            generator: Every piece draws from a stream of its own that is seeded from this one.
        """
        constraining = [piece for piece in self.pieces if isinstance(piece, _Constrains)]
        if not constraining:
            return
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        for piece in sorted(constraining, key=lambda piece: piece.name):
            piece.constrain(model, progress, stream(seed, piece.name, "constrain"))


@contextmanager
def _constant(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let what is computed inside the block have no gradient by these parameters."""
    before = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def _cross_entropy(clean: Pass | None, perturbed: Pass | None, share: float, y: Tensor) -> Tensor:
    """Return share CE(clean) + (1 - share) CE(perturbed)."""
    parts = []
    for seen, weight in ((clean, share), (perturbed, 1 - share)):
        if seen is not None and weight > 0:
            loss = functional.cross_entropy(seen.logits.float(), y)
            parts.append(loss if weight == 1 else weight * loss)
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
