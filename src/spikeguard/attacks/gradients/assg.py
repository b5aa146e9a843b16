"""ASSG: a surrogate whose sharpness adapts to each neuron's potentials during an attack."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.gradients.spiking_rules import differentiate
from spikeguard.attacks.losses import Loss
from spikeguard.kernels.custom_backward import compiled_passes
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.custom_backward import Fired, Prescription
from spikeguard.neurons.modes import backward_mode, spiking_layers

__all__ = ["ASSG"]

_BETA, _RELAXED, _SMALL = 0.9, 1.5, 1e-4


@dataclass(frozen=True)
class ASSG:
    r"""Adaptive sharpness surrogate gradient: an arctangent for every neuron, step and sample.

    .. math::
        M &\leftarrow 0.9\,M + 0.1\,|v - v_{th}|, \quad
        D \leftarrow 0.9\,D + 0.1\,\big||v - v_{th}| - M\big| \\
        \alpha &= \frac{a}{M + 1.5\,D + 10^{-4}}, \quad a = \frac{2}{\pi} \tan(\pi A), \quad
        h = \frac{\alpha / 2}{1 + (\pi \alpha (v - v_{th}) / 2)^2}

    M and D are updated once per attack step, with M = 1 and D = 0 at the start of a search. A
    neuron whose potentials are far from the threshold gets a wide surrogate. The rest is
    backpropagation through time.

    The gradient is adaptive: M and D are kept per sample, a search starts with fresh ones
    (``start_search``), and under ``EoT`` only the first draw of a step updates them. A direct call
    is the first step of a search.

    In foreign networks it replaces the surrogate of each layer's own recurrence, as
    ``SwapSurrogate`` does; without the path through time or through the reset, it needs layers with
    a known recurrence.

    Args:
        A: How far the gradient may vanish on average: alpha |v - v_th| stays near a for usual
            potentials. In (0, 1/2); the source searches 0.35 to 0.49.
        temporal: Backpropagate through time, as in the source; else only v[t] -> s[t] of each step.
            Long searches without the path through time find other adversarial inputs, and on small
            networks more of them.
        reset: Backpropagate through the reset too, unless the layer detaches it; else the path
            through time is the leak alone, as in the source. That finds more (docs/searches.md).

    Raises:
        ValueError: If A is out of range; at a call, if the model has no spiking layer, or a search
            continues with another batch.
        ForeignError: At a call, if the surrogate of a foreign layer cannot be replaced.

    Source: "Towards reliable evaluation of adversarial robustness for spiking neural networks",
        arXiv:2512.22522.
    """

    A: float = 0.425
    temporal: bool = True
    reset: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.A < 0.5:
            raise ValueError(f"ASSG: A must be in (0, 1/2), got {self.A:g}; usual is 0.425.")

    @property
    def sharpness(self) -> float:
        """The constant a of the formula, computed from A."""
        return 2 / math.pi * math.tan(math.pi * self.A)

    @property
    def whole(self) -> bool:
        """Whether no path of backpropagation through time is left out."""
        return self.temporal and self.reset

    def follows_rows(self, model: nn.Module) -> bool:
        """Whether the potentials of all layers are [T, B, *N], as ``rearrange`` requires."""
        return all(isinstance(layer, Neuron) for layer in spiking_layers(model).values())

    def begin(self) -> _Search:
        """Return a gradient for one search, with its own state."""
        return _Search(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient of a search's first step."""
        return self.begin()(model, x, y, loss)


class _Search:
    """State of one search: M and D of every layer, one pair per call of the layer in a pass."""

    def __init__(self, gradient: ASSG):
        self.gradient, self.sharpness = gradient, gradient.sharpness
        self.moments: dict[tuple[object, int], tuple[Tensor, Tensor]] = {}
        self._calls: dict[object, int] = {}
        self._learns = True

    def hold(self) -> Self:
        """Return a gradient that uses the moments without updating them."""
        still = copy.copy(self)
        still._learns, still._calls = False, {}
        return still

    def rearrange(self, rows: Tensor) -> None:
        """Follow the samples of a changed batch.

        Args:
            rows: For each sample its row in the last step, or -1 for a sample that starts [B].
        """
        for place, (M, D) in self.moments.items():
            self.moments[place] = _selected(M, rows, 1.0), _selected(D, rows, 0.0)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        self._calls.clear()
        foreign = {n: s for n, s in spiking_layers(model).items() if not isinstance(s, Neuron)}
        if not foreign or not self.gradient.whole:
            return differentiate("ASSG", self._prescribe, model, x, y, loss)
        with backward_mode(model, {name: _Sharp(self, layer) for name, layer in foreign.items()}):
            return BACKPROP(model, x, y, loss)

    def _prescribe(self, fired: Fired) -> Prescription:
        slope, kind = self.slope(fired.neuron, fired.v, fired.v_th), self.gradient
        return Prescription(slope, kind.temporal, reset=kind.reset)

    def slope(self, layer: object, v: Tensor, v_th: float) -> Tensor:
        """Return h for the potentials of a layer's next call in this step; update the moments."""
        call = self._calls[layer] = self._calls.get(layer, 0) + 1
        M, D = self._remembered((layer, call), v)
        fast = compiled_passes(v)
        if fast is not None and _same_layout(M, v):
            numbers = {"beta": _BETA, "relaxed": _RELAXED, "small": _SMALL}
            numbers |= {"sharpness": self.sharpness, "learns": int(self._learns)}
            found: Tensor = fast.sharpen(v, M, D, v_th, **numbers)
            return found
        if self._learns:
            distance = (v - v_th).abs()
            M.copy_(_BETA * M + (1 - _BETA) * distance)
            D.copy_(_BETA * D + (1 - _BETA) * (distance - M).abs())
        alpha = self.sharpness / (M + _RELAXED * D + _SMALL)
        return (alpha / 2) / (1 + (math.pi / 2 * alpha * (v - v_th)).square())

    def _remembered(self, place: tuple[object, int], v: Tensor) -> tuple[Tensor, Tensor]:
        """Return M and D of a layer call, to be updated in place; initially 1 and 0."""
        if place not in self.moments:
            moments = torch.ones_like(v), torch.zeros_like(v)
            if not self._learns:
                return moments
            self.moments[place] = moments
        M, D = self.moments[place]
        if M.shape != v.shape:
            raise ValueError(
                f"ASSG: the search started with potentials {list(M.shape)}, got "
                f"{list(v.shape)}; start a new one for another batch."
            )
        return M, D


def _selected(moment: Tensor, rows: Tensor, start: float) -> Tensor:
    """Return some rows of axis 1 in the same memory layout; ``start`` where a row is -1."""
    strides = moment.stride()
    order = sorted(range(moment.ndim), key=lambda axis: -strides[axis])
    rows = rows.to(moment.device)
    dense = moment.permute(order).index_select(order.index(1), rows.clamp_min(0))
    found = dense.permute(sorted(range(moment.ndim), key=order.__getitem__))
    new = (rows < 0).nonzero()[:, 0]
    return found.index_fill_(1, new, start) if len(new) else found


def _same_layout(x: Tensor, y: Tensor) -> bool:
    """Whether the elements of two tensors are in the same order in memory."""
    axes = zip(x.shape, x.stride(), y.stride(), strict=True)
    return all(one == other for size, one, other in axes if size > 1)


@dataclass(eq=False)
class _Sharp:
    """Surrogate for one foreign layer; it requests h step by step, last step first."""

    search: _Search
    layer: object

    def __call__(self, x: Tensor) -> Tensor:
        return self.search.slope(self.layer, x, 0.0)

    @property
    def half_width(self) -> float:
        return math.inf  # differs from neuron to neuron

    def widened(self, factor: float) -> Self:
        raise ValueError("ASSG: the surrogate adapts to the potentials; it cannot be widened.")
