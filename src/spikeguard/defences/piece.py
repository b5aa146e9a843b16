"""What an objective is made of: pieces, and what a piece looks at.

A *piece* is a frozen dataclass that derives from :class:`Piece` and has one or more of

* ``perturb(model, x, y, generator) -> x'``: the batch that is trained on instead of the clean one,
* ``term(step) -> loss``: a scalar added to the loss of the answers,
* ``fit(logits, y) -> loss``: the loss of the answers, a scalar, in place of the cross-entropy,
* ``constrain(model, progress, generator)``: a change of the weights after each optimiser step,
* ``clean_share``: how much of the loss of the answers is taken on the clean batch,
* ``frozen(model, progress)``: the parameters that a step leaves alone,
* ``require(model, options)``: a refusal, before the training, of what it cannot work with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from spikeguard.neurons.trace import Trace

if TYPE_CHECKING:
    from spikeguard.defences.objective import Objective

__all__ = [
    "AddsTerm",
    "Constrains",
    "Fits",
    "Outcome",
    "Pass",
    "Perturbs",
    "Piece",
    "Step",
    "Vanilla",
]


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
        losses: Scalar loss of every term, weights included; that of the answers, such as
            "cross_entropy", comes first.
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
        clean_share: Share of the answers' loss taken on the clean batch where a piece perturbs, in
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
        """Share of the answers' loss taken on the clean batch."""
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
        from spikeguard.defences.objective import Objective  # it is built of pieces

        return Objective((self,)) | other


@runtime_checkable
class Perturbs(Protocol):
    """Replaces the batch that is trained on."""

    name: ClassVar[str]

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images to train on, like ``x`` [B, ...] or one for each step [T, B, ...]."""


@runtime_checkable
class AddsTerm(Protocol):
    """Adds a loss to that of the answers."""

    name: ClassVar[str]

    def term(self, step: Step) -> Tensor:
        """Return a scalar loss, its weight included."""


@runtime_checkable
class Fits(Protocol):
    """Says what the answers are measured by, instead of the cross-entropy."""

    name: ClassVar[str]

    def fit(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the scalar loss of logits [B, K], float32 or wider, against labels [B]."""


@runtime_checkable
class Constrains(Protocol):
    """Changes the weights after each optimiser step."""

    def constrain(self, model: nn.Module, progress: float, generator: torch.Generator) -> None:
        """Change the weights in place; runs without gradients."""


@dataclass(frozen=True)
class Vanilla(Piece):
    """Plain training: cross-entropy on the clean images; ``Vanilla() | x`` is ``x``."""

    name: ClassVar[str] = "vanilla"
