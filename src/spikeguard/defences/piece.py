"""Pieces of an objective, and the data passed to their methods.

A *piece* is a frozen dataclass that derives from :class:`Piece`, which gives it its ``|`` and its
name, and has one or more of

* ``perturb(model, x, y, generator) -> x'``: the batch to train on instead of the clean one,
* ``term(step) -> loss``: a scalar added to the classification loss,
* ``measured(step) -> Measured``: the same before weighting, which is logged too,
* ``fit(logits, y) -> loss``: the classification loss, a scalar, instead of the cross-entropy,
* ``constrain(model, progress, generator)``: a change of the weights after each optimiser step,
* ``clean_share``: share of the classification loss that is computed on the clean batch,
* ``frozen(model, progress)``: the parameters that a step does not train,
* ``require(model, options)``: a check, before training, that rejects an unsuitable model or option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from spikeguard.neurons.trace import Trace

if TYPE_CHECKING:
    from spikeguard.defences.objective import Objective

__all__ = [
    "AddsTerm",
    "Constrains",
    "Fits",
    "Measured",
    "Measures",
    "Outcome",
    "Pass",
    "Perturbs",
    "Piece",
    "Step",
    "Vanilla",
]


_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # between two words
_NAMED: set[type] = set()  # pieces with the default name


@dataclass(frozen=True)
class Pass:
    """One forward pass in training mode.

    Attributes:
        x: The input images [B, ...], or [T, B, ...] if each time step has a different image.
        logits: The model's output [B, K].
        trace: Potentials and spikes of every spiking layer; None if no term needs them.
        steps: The output of every time step [T, B, K], whose mean is ``logits``; None if no term
            needs it.
    """

    x: Tensor
    logits: Tensor
    trace: Trace | None
    steps: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """The data of one training step, passed to every term.

    Attributes:
        model: The network, in training mode.
        clean: The pass on the clean batch; None if a piece perturbs and no piece needs it.
        perturbed: The pass on the perturbed batch; None if no piece perturbs.
        y: Labels [B].
        progress: Finished share of the training, in [0, 1].
        generator: Random stream of this piece.
        epochs_done: Finished share of the training at the start of the epoch; None if unknown.
    """

    model: nn.Module
    clean: Pass | None
    perturbed: Pass | None
    y: Tensor
    progress: float
    generator: torch.Generator
    epochs_done: float | None = None

    @property
    def epoch_progress(self) -> float:
        """Finished share of the training at the start of the epoch, in [0, 1]."""
        return self.progress if self.epochs_done is None else self.epochs_done

    @property
    def seen(self) -> Pass:
        """The pass to train on: the perturbed one if there is one, else the clean one."""
        seen = self.perturbed if self.perturbed is not None else self.clean
        assert seen is not None
        return seen

    @property
    def both(self) -> tuple[Pass, Pass]:
        """The clean and the perturbed pass, for a piece with ``needs_clean`` and a perturbation."""
        assert self.clean is not None and self.perturbed is not None
        return self.clean, self.perturbed


@dataclass(frozen=True)
class Measured:
    """A term before weighting.

    Attributes:
        weight: Weight of the term, >= 0.
        value: The unweighted term, a scalar.
        layers: The share of each spiking layer that the term is computed on, by name; scalars.
    """

    weight: float
    value: Tensor
    layers: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The weighted term."""
        return self.weight * self.value

    def named(self, name: str) -> dict[str, Tensor]:
        """Return value and layers as ``{name: ..., "name/layer": ...}``."""
        return {name: self.value} | {f"{name}/{k}": value for k, value in self.layers.items()}


@dataclass(frozen=True)
class Outcome:
    """The result of an objective on one batch.

    Attributes:
        losses: Scalar loss by name, weights included; the classification loss, such as
            "cross_entropy", comes first.
        seen: The forward pass that was trained on.
        unweighted: Terms before weighting, by name, and their layers, as "name/layer".
    """

    losses: dict[str, Tensor]
    seen: Pass
    unweighted: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The sum of the losses, which is differentiated."""
        return torch.stack([loss.float() for loss in self.losses.values()]).sum()


class Piece:
    """A part of an objective; ``a | b`` combines two.

    Attributes:
        name: Name of the piece in recipes, of its loss in the metrics and of its random stream. By
            default the class name in snake case: ``LabelSmoothing`` is ``label_smoothing``.
        needs_trace: The term reads membrane potentials, so the passes are recorded.
        needs_steps: The term reads the output of every time step, ``Pass.steps``.
        needs_clean: The term reads the clean pass, even if another piece perturbs.
        needs_perturbed: The term needs a perturbed pass; an objective without one is rejected.
        clean_share: Share of the classification loss on the clean batch if a piece perturbs, in
            [0, 1]; None leaves it to the other pieces, and if all are None it is 0.
        of_whole_batch: The term is no mean over samples. It takes what it needs of the whole batch
            from ``spikeguard.kernels.batch_statistics``, where several ranks share one.
        needs_input_gradient: The term differentiates logits in ``Pass.x``.
        added_later: Fields left out of ``repr`` at their default, so that a run of an earlier
            version, which has no such field, can be resumed. For dataclasses with ``repr=False``.
    """

    name: ClassVar[str]
    needs_trace: ClassVar[bool] = False
    needs_steps: ClassVar[bool] = False
    needs_clean: ClassVar[bool] = False
    needs_perturbed: ClassVar[bool] = False
    of_whole_batch: ClassVar[bool] = False
    added_later: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        piece: Any = self
        shown = (
            f"{each.name}={getattr(self, each.name)!r}"
            for each in (fields(piece) if is_dataclass(piece) else ())
            if each.name not in self.added_later or getattr(self, each.name) != each.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        given = any("name" in vars(each) and each not in _NAMED for each in cls.__mro__)
        if not given:
            cls.name = _WORD.sub("_", cls.__name__).lower()
            _NAMED.add(cls)

    @property
    def idle(self) -> bool:
        """Whether the weight is 0, so that training is the same without the piece."""
        return False

    @property
    def clean_share(self) -> float | None:
        """Share of the classification loss on the clean batch, or None."""
        return None

    @property
    def revised(self) -> Mapping[str, str]:
        """The settings in use that meant something else in an earlier version: name to meaning.

        They are part of a run's identity: a run that an earlier version began is not resumed.
        """
        return {}

    @property
    def needs_input_gradient(self) -> bool:
        """Whether the term differentiates a pass in its input images."""
        return False

    def frozen(self, model: nn.Module, progress: float) -> Iterable[nn.Parameter]:
        """Return the parameters that are not trained at this point of the training."""
        return ()

    def require(self, model: nn.Module, options: object) -> None:
        """Raise ValueError if the piece cannot work with this model or these training options."""

    def __or__(self, other: Piece | Objective) -> Objective:
        from spikeguard.defences.objective import Objective  # a circular import at module level

        return Objective((self,)) | other


@runtime_checkable
class Perturbs(Protocol):
    """A piece that replaces the training batch."""

    name: ClassVar[str]

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images to train on, shaped like ``x`` [B, ...] or one per step [T, B, ...]."""


@runtime_checkable
class AddsTerm(Protocol):
    """A piece that adds a term to the classification loss."""

    name: ClassVar[str]

    def term(self, step: Step) -> Tensor:
        """Return a scalar loss, weight included."""


@runtime_checkable
class Measures(Protocol):
    """A piece whose term is logged before weighting, in total and by layer."""

    name: ClassVar[str]

    def measured(self, step: Step) -> Measured:
        """Return the term before weighting; ``term(step)`` is its ``loss``."""


@runtime_checkable
class Fits(Protocol):
    """A piece that replaces the cross-entropy as the classification loss."""

    name: ClassVar[str]

    def fit(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the scalar loss of logits [B, K], float32 or wider, against labels [B]."""


@runtime_checkable
class Constrains(Protocol):
    """A piece that changes the weights after each optimiser step."""

    def constrain(self, model: nn.Module, progress: float, generator: torch.Generator) -> None:
        """Change the weights in place; runs without gradients."""


@dataclass(frozen=True)
class Vanilla(Piece):
    """Plain training: cross-entropy on the clean images; ``Vanilla() | x`` is ``x``."""

    name: ClassVar[str] = "vanilla"
