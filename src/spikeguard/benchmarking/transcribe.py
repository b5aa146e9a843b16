"""Rebuild a SpikeGuard network from the modules of another library: same layers, same weights.

One traversal is used for all libraries. A style gives the module for a neuron and for a sequence of
stateless layers; the rest is plain torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from spikeguard.models.resnet import _Block
from spikeguard.models.snn import SNN, TimeSequential
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.lif import LIF

__all__ = ["MultiStep", "StepLoop", "Style", "TimeFolded", "transcribe"]


def _in_a_row(layers: Sequence[nn.Module]) -> nn.Module:
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Style:
    """How a library builds a network.

    Args:
        neuron: Returns the library's module for a SpikeGuard LIF neuron.
        stateless: Returns the library's module for a sequence of layers without time.
        drive_scale: Factor on the input of every neuron, folded into the layer before it; a power
            of two changes no rounding.
    """

    neuron: Callable[[LIF], nn.Module]
    stateless: Callable[[Sequence[nn.Module]], nn.Module] = field(default=_in_a_row)
    drive_scale: float = 1.0


def transcribe(model: SNN, style: Style) -> nn.Sequential:
    """Return the body of the network with copied weights, for one time step or for all at once.

    Args:
        model: An SNN of convolutions, batch normalisation, pooling, linear layers, LIF neurons and
            the blocks of WRN16_4.
        style: Modules of the library.

    Raises:
        ValueError: If the network has a neuron other than LIF, or a layer into which drive_scale
            cannot be folded.
    """
    stages = [stage for stage in model.children() if isinstance(stage, TimeSequential)]
    return nn.Sequential(*(_sequence(stage, style) for stage in stages))


def _sequence(layers: TimeSequential, style: Style) -> nn.Sequential:
    parts: list[nn.Module] = []
    run: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, Neuron | _Block):
            if isinstance(layer, Neuron) and run:
                _multiply(run[-1], style.drive_scale)
            parts += [style.stateless(run)] if run else []
            run = []
            parts.append(_stateful(layer, style))
        else:
            run.append(copy.deepcopy(layer))
    return nn.Sequential(*parts, *([style.stateless(run)] if run else []))


def _stateful(layer: Neuron | _Block, style: Style) -> nn.Module:
    if isinstance(layer, _Block):
        return _Residual(layer, style)
    if not isinstance(layer, LIF) or layer.input_scale != 1:
        raise ValueError(f"transcribe: only LIF neurons can be compared, got {layer}.")
    return style.neuron(layer)


def _multiply(layer: nn.Module, factor: float) -> None:
    """Multiply the output of a layer."""
    if factor == 1:
        return
    if not isinstance(layer, nn.BatchNorm2d | nn.Linear):
        raise ValueError(f"transcribe: cannot scale the output of {layer}.")
    for weight in (layer.weight, layer.bias):
        if weight is not None:
            weight.data.mul_(factor)


class _Residual(nn.Module):
    """A block of WRN16_4: activation, then shortcut and residual branch with two coefficients."""

    def __init__(self, block: _Block, style: Style):
        super().__init__()
        self.activate = _sequence(block.activate, style)
        self.residual = _sequence(block.residual, style)
        self.shortcut = (
            None if block.shortcut is None else style.stateless([copy.deepcopy(block.shortcut)])
        )
        self.coefficients = nn.Parameter(block.join.coefficients.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        through = x if self.shortcut is None else self.shortcut(active)
        joined: Tensor = self.coefficients[0] * through + self.coefficients[1] * self.residual(
            active
        )
        return joined


class _Classifier(nn.Module):
    """Base of all classifiers: normalise, run the body, average over time."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: SNN,
        style: Style,
        reset: Callable[[nn.Module], None] = lambda layer: None,
    ):
        super().__init__()
        self.T = model.T
        self.body = transcribe(model, style)
        self.register_buffer("mean", model.mean.clone())
        self.register_buffer("std", model.std.clone())
        self._reset = reset

    def start(self, x: Tensor) -> Tensor:
        """Reset every neuron and normalise the images."""
        for layer in self.body.modules():
            self._reset(layer)
        return (x - self.mean) / self.std


class StepLoop(_Classifier):
    """Run the body once for each time step; its neurons keep their state between steps."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to logits [B, K]."""
        x = self.start(x)
        total: Tensor = self.body(x)
        for _ in range(self.T - 1):
            total = total + self.body(x)
        return total / self.T


class MultiStep(_Classifier):
    """Run the body once on [T, B, ...]; its layers take all steps at once."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to logits [B, K]."""
        x = self.start(x)
        logits: Tensor = self.body(x.expand(self.T, *x.shape)).mean(0)
        return logits


class TimeFolded(_Classifier):
    """Run a body without time on T B images: an ANN as large as the SNN."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to logits [B, K]."""
        x = self.start(x)
        y = self.body(x.expand(self.T, *x.shape).flatten(0, 1))
        logits: Tensor = y.view(self.T, len(x), -1).mean(0)
        return logits
