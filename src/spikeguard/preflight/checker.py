"""check(): test whether attacks on a model can measure its robustness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.model_access import frozen, require_finite_weights, require_inputs
from spikeguard.data.conversion import as_labels, as_tensor
from spikeguard.encoders.input_space import PIXELS, space_of
from spikeguard.models.adapters.classifier import Foreign
from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.models.adapters.presentation import taken
from spikeguard.neurons.modes import spiking_layers
from spikeguard.preflight.axes import require_axes
from spikeguard.preflight.chance import guesses
from spikeguard.preflight.gradient import require_gradient
from spikeguard.preflight.modes import TrainingModeError, evaluation_mode_required
from spikeguard.preflight.padding import padding_recorded
from spikeguard.preflight.repeats import (
    changes,
    left_unchanged,
    presented,
    require_independence,
    require_same_again,
    state,
)
from spikeguard.preflight.surrogates import Compared, compare

__all__ = ["Preflight", "check", "described"]


_SAMPLES = 32
_DRIVEN = ("framework", "T", "presentation", "readout")


@dataclass(frozen=True)
class Preflight:
    """The result of ``check`` for a model that passed.

    Attributes:
        samples: Number of images.
        classes: Number of classes K of its logits.
        accuracy: Share of images that are classified correctly, in [0, 1].
        zero_gradient: Share of images whose input gradient is exactly zero.
        eps: Length of the steps below.
        along_gradient: Rise of the mean loss after a step of length eps along the gradient's sign.
        along_random: The largest rise after steps of the same length in random directions.
        graded: Spiking layers whose outputs have other values than 0 and 1.
        surrogates: Accuracy under a short PGD with three surrogates, or why they were not compared.
        driven: How a foreign network is run: T, framework, presentation, readout.
        neurons: Reset, surrogate and firing condition of its spiking layers, by name.
        padding_only: A sentence on weights that see nothing but padding; empty if they are few.
        steps_counted: False for a foreign network whose steps cannot be counted: nothing shows
            that it makes T steps.
    """

    samples: int
    classes: int
    accuracy: float
    zero_gradient: float
    eps: float
    along_gradient: float
    along_random: float
    graded: tuple[str, ...]
    surrogates: Compared | str
    driven: dict[str, Any]
    neurons: dict[str, dict[str, str | None]]
    padding_only: str = ""
    steps_counted: bool = True

    @property
    def warning(self) -> str:
        """The reasons why attack results cannot be trusted; empty if there is none."""
        swept = self.surrogates.warning if isinstance(self.surrogates, Compared) else ""
        return "; ".join(filter(None, (self._guesses, swept)))

    @property
    def _guesses(self) -> str:
        return guesses(self.accuracy * self.samples, self.samples, self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        driven = ", ".join(f"{name} {value}" for name, value in self.driven.items())
        driven += "" if self.steps_counted else ", steps not counted"
        graded = f"; graded spikes in {', '.join(self.graded)}" if self.graded else ""
        guessed = f"; {self._guesses}" if self._guesses else ""
        return (
            f"{driven or 'a classifier'}: {100 * self.accuracy:.1f} % of {self.samples} images "
            f"right, {100 * self.zero_gradient:.0f} % without a gradient; a step of {self.eps:.3g} "
            f"along the gradient raises the loss by {self.along_gradient:.3g}, in a random "
            f"direction by {self.along_random:.3g}{graded}; {self._swept()}{guessed}"
            f"{'; ' if self.padding_only else ''}{self.padding_only.rstrip('.')}"
        )

    def _swept(self) -> str:
        if isinstance(self.surrogates, str):
            return f"surrogates not compared: {self.surrogates}"
        return self.surrogates.warning or (
            f"PGD at eps {self.surrogates.eps:.3g} leaves {100 * self.surrogates.left['own']:.1f} "
            f"% with its own surrogate, {100 * self.surrogates.worst:.1f} % in the worst of three"
        )


def check(model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Preflight:
    """Reject a model on which attacks would not measure robustness.

    The model must return the same logits when it is called again, alone and in another order; have
    an input gradient that raises the loss more than random directions do; and not change. If three
    surrogates lead a short PGD to clearly different accuracies, or the model classifies no better
    than guessing, the result has a ``warning``. Uses the first 32 images.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``, such as
            :func:`spikeguard.foreign` makes. It runs in evaluation mode; its mode is restored.
        x: Images [B, ...] in [0, 1], or uint8, B >= 2; or event frames [B, T, C, H, W] for a
            network that takes them. Shown as float32, as in ``evaluate``.
        y: Labels [B], of any integer type.
        seed: Seed of the random directions and starts.

    Raises:
        ValueError: If the model fails; the message names the fault and a remedy.

    Source: faults reported against stateful networks, sampling encoders and evaluations in training
        mode.
    """
    x, y = _as_evaluated(x, y, scaled=space_of(model) == PIXELS)
    require_axes(model, x)
    require_inputs(x, y, space_of(model))
    if len(x) < 2:
        raise ValueError("check: needs at least 2 images, to compare batches of different sizes.")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x, y = x.to(device), y.to(device)
    before = state(model)
    try:
        require_finite_weights(model)
        with frozen(model), left_unchanged(x):
            found = _examined(model, x, y, seed)
    except (AttackError, TrainingModeError) as error:
        raise ValueError(f"check: {error}") from error
    changed = changes(before, state(model))
    if changed:
        raise ValueError(
            f"check: calls in evaluation mode change the model ({', '.join(changed[:3])}); keep "
            "batch norm in evaluation mode and write to no buffer in forward."
        )
    return found


def _as_evaluated(x: Tensor, y: Tensor, *, scaled: bool) -> tuple[Tensor, Tensor]:
    """Return the first inputs as a float32 copy and their labels as int64, as evaluate does.

    Where they are ``scaled``, uint8 images of 0 .. 255 become images in [0, 1].
    """
    x, y = as_tensor(x[:_SAMPLES], "check: images"), as_labels(y[:_SAMPLES], "check")
    peak = 255 if scaled and x.dtype == torch.uint8 else 1
    return x.to(torch.float32, copy=True) / peak, y


def _examined(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Preflight:
    logits = presented(model, y, seed)
    everyone = torch.arange(len(x))
    graded: set[str] = set()
    with (
        evaluation_mode_required(model),
        _graded_recorded(model, graded),
        padding_recorded(model) as padding,
    ):
        logits(x, everyone)
    first = require_same_again(lambda: logits(x, everyone))
    require_independence(logits, x, first)
    zero, eps, along, chance = require_gradient(model, logits, x, y, seed)
    driven, neurons = described(model)
    return Preflight(
        samples=len(x),
        classes=first.shape[1],
        accuracy=float((first.argmax(1) == y).double().mean()),
        zero_gradient=zero,
        eps=eps,
        along_gradient=along,
        along_random=chance,
        graded=tuple(sorted(graded)),
        surrogates=compare(model, logits, x, y, seed),
        driven=driven,
        neurons=neurons,
        padding_only=str(padding),
        steps_counted=all(m.steps_counted for m in model.modules() if isinstance(m, Foreign)),
    )


def described(model: nn.Module) -> tuple[dict[str, Any], dict[str, dict[str, str | None]]]:
    """Return how a foreign network is run and its neurons, as in ``Preflight``; else two {}."""
    adapter = next((m for m in model.modules() if isinstance(m, Foreign)), None)
    if adapter is None:
        return {}, {}
    driven = {name: getattr(adapter, name) for name in _DRIVEN}
    return driven, {name: layer.described() for name, layer in adapter.spiking_layers().items()}


@contextmanager
def _graded_recorded(model: nn.Module, graded: set[str]) -> Iterator[None]:
    """Record the foreign layers with graded spikes."""
    handles = []
    for name, layer in spiking_layers(model).items():
        if isinstance(layer, ForeignNeuron):

            def look(module: nn.Module, given: object, result: Any, name: str = name) -> None:
                spikes = taken(result, 0)
                if not bool(((spikes == 0) | (spikes == 1)).all()):
                    graded.add(name)

            handles.append(layer.module.register_forward_hook(look))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
