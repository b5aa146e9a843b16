"""Training objective: a classification loss, a perturbation, terms and weight constraints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeguard.defences.piece import (
    AddsTerm,
    Constrains,
    Fits,
    Measures,
    Outcome,
    Pass,
    Perturbs,
    Piece,
    Step,
    Vanilla,
)
from spikeguard.models.step_outputs import collect_steps
from spikeguard.neurons.modes import record
from spikeguard.rng import stream
from spikeguard.system.swapping import swapped

__all__ = ["Objective"]


@dataclass(frozen=True, repr=False)
class Objective:
    """The loss that a training step minimises: a classification loss plus the terms of the pieces.

    The classification loss is the cross-entropy, or the ``fit`` of a piece. It and every term are
    computed on the perturbed batch if a piece perturbs, and on the clean batch otherwise. With a
    ``clean_share`` c the classification loss is c CE(clean) + (1 - c) CE(perturbed). If a term
    compares both batches, both run, the clean one first. The order of the pieces does not matter.

    Args:
        pieces: The pieces, at most one of which perturbs; no piece is plain training.

    Raises:
        ValueError: If two pieces perturb, two have a ``fit``, two have the same name or different
            clean shares, or an element is not a piece.

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
        perturbing = [repr(piece) for piece in kept if isinstance(piece, Perturbs)]
        if len(perturbing) > 1:
            raise ValueError(
                f"Objective: a batch is perturbed once, got {' and '.join(perturbing)}; keep one."
            )
        fitting = [piece.name for piece in kept if isinstance(piece, Fits)]
        if len(fitting) > 1:
            raise ValueError(
                "Objective: there is one classification loss, got "
                f"{' and '.join(fitting)}; keep one."
            )
        shares = {p.name: p.clean_share for p in kept if p.clean_share is not None}
        if len(set(shares.values())) > 1:
            listed = " and ".join(f"{name} {share:g}" for name, share in shares.items())
            raise ValueError(f"Objective: the clean batch has one share of the loss, got {listed}.")

    @classmethod
    def of(cls, objective: Objective | Piece) -> Objective:
        """Return the objective of a single piece; an objective is returned unchanged."""
        return objective if isinstance(objective, Objective) else cls((objective,))

    def __or__(self, other: Piece | Objective) -> Objective:
        return Objective(self.pieces + Objective.of(other).pieces)

    def require(self, model: nn.Module, options: object) -> None:
        """Reject, before training, combinations that cannot work.

        Args:
            model: The model to train.
            options: The ``TrainOptions``.

        Raises:
            ValueError: If a piece needs a perturbed batch and none perturbs, or a piece rejects the
                model or the options.
        """
        for piece in self.pieces:
            if piece.needs_perturbed and self._perturbing is None:
                raise ValueError(
                    f"Objective: {piece.name} needs a perturbed batch besides the clean one; add "
                    "a piece that perturbs, such as at or gaussian."
                )
            piece.require(model, options)

    @property
    def _perturbing(self) -> Perturbs | None:
        return next((p for p in self._active if isinstance(p, Perturbs)), None)

    @property
    def perturbs(self) -> bool:
        """Whether a piece of weight above 0 perturbs the batch."""
        return self._perturbing is not None

    @property
    def fit(self) -> tuple[str, Callable[[Tensor, Tensor], Tensor]]:
        """Name and function of the classification loss, a mean over the batch."""
        found = next((p for p in self.pieces if isinstance(p, Fits)), None)
        return (
            ("cross_entropy", functional.cross_entropy)
            if found is None
            else (found.name, found.fit)
        )

    @property
    def _active(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if not piece.idle)

    @property
    def clean_share(self) -> float:
        """Share of the classification loss that is computed on the clean batch."""
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
        epochs_done: float | None = None,
    ) -> Outcome:
        """Perturb a batch, run the model on it and return its losses.

        Args:
            model: In training mode; a perturbation is crafted in evaluation mode.
            x: Images [B, ...] in [0, 1].
            y: Labels [B].
            progress: Finished share of the training, in [0, 1].
            generator: Seeds a separate random stream for each piece.
            epochs_done: ``progress`` at the start of the epoch; ``progress`` when left out.

        Raises:
            ValueError: If progress is outside [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"Objective: progress is a share in [0, 1], got {progress:g}.")
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        perturbing, share = self._perturbing, self.clean_share
        x_perturbed = clean = perturbed = None
        if perturbing is not None:
            x_perturbed = perturbing.perturb(model, x, y, stream(seed, perturbing.name)).detach()
        constant = [p for piece in self.pieces for p in piece.frozen(model, progress)]
        with swapped(constant, "requires_grad", False):
            if share > 0 or any(piece.needs_clean for piece in self._active):
                clean = _forward(model, x, self._active)
            if x_perturbed is not None:
                perturbed = _forward(model, x_perturbed, self._active)
            name, fit = self.fit
            losses = {name: _classification_loss(fit, clean, perturbed, share, y)}
            unweighted: dict[str, Tensor] = {}
            for piece in sorted(self._active, key=lambda piece: piece.name):
                if isinstance(piece, AddsTerm):
                    own = stream(seed, piece.name, "term")
                    step = Step(model, clean, perturbed, y, progress, own, epochs_done)
                    measuring = _measuring(piece)
                    if measuring is not None:
                        measured = measuring.measured(step)
                        unweighted |= measured.named(piece.name)
                        term = measured.loss
                    else:
                        term = piece.term(step)
                    if term.ndim:
                        raise ValueError(
                            f"{piece.name}: term() returns a scalar loss, got {list(term.shape)}."
                        )
                    losses[piece.name] = term
        seen = perturbed if perturbed is not None else clean
        assert seen is not None
        logged = {name: value.detach() for name, value in unweighted.items()}
        return Outcome(losses, seen, logged)

    def measure_idle(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        x_perturbed: Tensor | None,
        progress: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return the unweighted terms of the pieces of weight 0, in passes of their own.

        Buffers, such as batch normalisation statistics, are restored; nothing is differentiated in
        the weights.

        Args:
            model: In training mode.
            x: Clean images [B, ...].
            y: Labels [B].
            x_perturbed: The images that another piece perturbed, or None.
            progress: Finished share of the training, in [0, 1].
            generator: Seeds a separate random stream for each piece.
        """
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        found: dict[str, Tensor] = {}
        with _buffers_restored(model), swapped(model.parameters(), "requires_grad", False):
            for piece in sorted(self.pieces, key=lambda piece: piece.name):
                measuring = _measuring(piece)
                if measuring is None or not piece.idle:
                    continue
                attacked = x_perturbed
                if isinstance(piece, Perturbs):
                    attacked = piece.perturb(model, x, y, stream(seed, piece.name)).detach()
                if piece.needs_perturbed and attacked is None:
                    continue
                clean = None
                if piece.needs_clean or attacked is None:
                    clean = _forward(model, x, (piece,))
                perturbed = None if attacked is None else _forward(model, attacked, (piece,))
                own = stream(seed, piece.name, "term")
                step = Step(model, clean, perturbed, y, progress, own)
                found |= measuring.measured(step).named(piece.name)
        return {name: value.detach() for name, value in found.items()}

    def losses(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        progress: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return the losses, the classification loss first; their sum is the training loss."""
        return self(model, x, y, progress=progress, generator=generator).losses

    @torch.no_grad()
    def constrain(self, model: nn.Module, progress: float, generator: torch.Generator) -> None:
        """Apply the weight constraints of the pieces; called after every optimiser step.

        Args:
            model: The model; its weights are changed in place.
            progress: Finished share of the training, in [0, 1].
            generator: Seeds a separate random stream for each piece.
        """
        constraining = [piece for piece in self.pieces if isinstance(piece, Constrains)]
        if not constraining:
            return
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        for piece in sorted(constraining, key=lambda piece: piece.name):
            piece.constrain(model, progress, stream(seed, piece.name, "constrain"))


def _forward(model: nn.Module, x: Tensor, pieces: Iterable[Piece]) -> Pass:
    """Run the model on a batch, with the trace, steps or input gradient that a piece needs."""
    pieces = tuple(pieces)
    if any(piece.needs_input_gradient for piece in pieces):
        x = x.detach().requires_grad_()
    recorded = any(piece.needs_trace for piece in pieces)
    stepwise = any(piece.needs_steps for piece in pieces)
    with (
        record(model) if recorded else nullcontext() as trace,
        collect_steps(model) if stepwise else nullcontext([None]) as steps,
    ):
        logits = model(x)
        return Pass(x, logits, trace, steps[-1])


def _measuring(piece: Piece) -> Measures | None:
    """Return the piece if its term is that of its ``measured``, not of a subclass's ``term``."""

    def depth(method: str) -> int:
        return next(n for n, each in enumerate(type(piece).__mro__) if method in vars(each))

    if not (isinstance(piece, Measures) and isinstance(piece, AddsTerm)):
        return None
    return piece if depth("measured") <= depth("term") else None


@contextmanager
def _buffers_restored(model: nn.Module) -> Iterator[None]:
    """Give every buffer its value back after the block."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in saved:
            buffer.copy_(value)


def _classification_loss(
    fit: Callable[[Tensor, Tensor], Tensor],
    clean: Pass | None,
    perturbed: Pass | None,
    share: float,
    y: Tensor,
) -> Tensor:
    """Return share fit(clean) + (1 - share) fit(perturbed)."""
    parts = []
    for seen, weight in ((clean, share), (perturbed, 1 - share)):
        if seen is not None and weight > 0:
            loss = fit(seen.logits.float(), y)
            parts.append(loss if weight == 1 else weight * loss)
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
