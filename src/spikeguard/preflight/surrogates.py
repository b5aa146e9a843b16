"""Comparison of a short attack with three surrogates: does the accuracy depend on them?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, SwapSurrogate
from spikeguard.attacks.searches.pgd import PGD
from spikeguard.attacks.threat import Linf
from spikeguard.encoders.input_space import space_of
from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.neurons.modes import spiking_layers
from spikeguard.neurons.surrogate import Triangular
from spikeguard.preflight.unknown_spikes import OUT_OF_REACH, unknown_spikes
from spikeguard.rng import SampleStreams, key
from spikeguard.system.intervals import wilson

__all__ = ["Compared", "compare"]

_STEPS = 5
_RADII = (8 / 255, 0.1, 0.3)
_WIDTHS = (0.5, 2.0, 1.0)  # the last replaces one that the model carries

Logits = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Compared:
    """Accuracy under five steps of PGD with the model's own surrogate and with two others.

    Attributes:
        eps: Radius in pixel units, Linf.
        left: Share of the images that stay correct, in [0, 1], by surrogate; "own" is the first.
        worst: Share that stays correct under all of them.
        room: Tolerated gap of ``worst`` below "own": half a Wilson 95 % interval.
    """

    eps: float
    left: dict[str, float]
    worst: float
    room: float

    @property
    def warning(self) -> str:
        """State that the surrogates disagree clearly, and the remedy; empty if they agree."""
        if self.left["own"] - self.worst <= self.room:
            return ""
        shares = ", ".join(f"{100 * share:.1f} % ({name})" for name, share in self.left.items())
        return (
            f"not trustworthy: PGD with {_STEPS} steps at eps {self.eps:.3g} leaves {shares} of "
            f"the images, {100 * self.worst:.1f} % in the worst case over these surrogates; "
            "report the worst over surrogates (suite 'snn')"
        )


def compare(model: nn.Module, logits: Logits, x: Tensor, y: Tensor, seed: int) -> Compared | str:
    """Attack images with three surrogates, from the same starts.

    Uses the first of the radii 8/255, 0.1 and 0.3 at which at most half of the correct images stay
    correct, or else the last. At a radius where few attacks succeed, all surrogates agree.

    Args:
        model: The classifier, frozen.
        logits: ``(images, their indices) -> logits [B, K]``, without a gradient.
        x: Images [B, ...] in [0, 1].
        y: Labels [B].
        seed: Seed of the random starts.

    Returns:
        The accuracies, or why nothing was compared.

    Source: Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266), who take the worst over many.
    """
    fixed = _fixed(model)
    if fixed:
        return fixed
    with unknown_spikes(model) as names:
        logits(x, torch.arange(len(x)))
    if names:
        return OUT_OF_REACH.format(", ".join(names))
    clean = logits(x, torch.arange(len(x))).argmax(1) == y
    for eps in _RADII:
        try:
            found = _at(eps, model, logits, x, y, clean, seed)
        except AttackError as error:  # raised by the attack; the model passed its own tests
            return str(error)
        if 2 * found.worst * len(x) <= int(clean.sum()):
            break
    return found


def _at(
    eps: float, model: nn.Module, logits: Logits, x: Tensor, y: Tensor, clean: Tensor, seed: int
) -> Compared:
    index, right = torch.arange(len(x)), {}
    for name, gradient in _gradients(model).items():
        attack = PGD(Linf(eps, space_of(model).high), steps=_STEPS, gradient=gradient)
        starts = SampleStreams(key(seed, "check", "surrogates"), index)
        there = attack(model, x, y, generator=starts)
        right[name] = clean & (logits(there, index).argmax(1) == y)
    low, high = wilson(float(right["own"].sum()), len(x))
    return Compared(
        eps=eps,
        left={name: float(each.double().mean()) for name, each in right.items()},
        worst=float(torch.stack(list(right.values())).all(0).double().mean()),
        room=(high - low) / 2,
    )


def _gradients(model: nn.Module) -> dict[str, Gradient]:
    """Return gradients with the model's own surrogate and with two other triangles."""
    carried = {layer.surrogate for layer in spiking_layers(model).values()}
    others = [Triangular(width) for width in _WIDTHS if carried != {Triangular(width)}]
    swapped = {f"triangle of half-width {s.width:g}": SwapSurrogate(s) for s in others[:2]}
    return {"own": BACKPROP, **swapped}


def _fixed(model: nn.Module) -> str:
    """Return why surrogates cannot be exchanged; empty if they can."""
    layers = spiking_layers(model)
    if not layers:
        return "the model has no known spiking layer"
    for name, layer in layers.items():
        if isinstance(layer, ForeignNeuron) and layer.framework.site(layer.module) is None:
            return f"the surrogate of {name} ({type(layer.module).__name__}) cannot be exchanged"
        try:
            layer.surrogate  # noqa: B018 - some are read from the layer's parameters
        except (ValueError, RuntimeError) as error:
            return f"the surrogate of {name} cannot be read: {str(error).partition(chr(10))[0]}"
    return ""
