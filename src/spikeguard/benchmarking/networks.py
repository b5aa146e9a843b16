"""Networks of the benchmark: weights from a fixed seed, scaled so that every layer fires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from spikeguard.models.feedforward import CNN, VGG5, VGG11
from spikeguard.models.resnet import WRN16_4
from spikeguard.models.snn import SNN
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.lif import LIF
from spikeguard.neurons.modes import record
from spikeguard.neurons.surrogate import Triangular
from spikeguard.rng import stream

__all__ = ["GPU", "GPU_QUICK", "NETWORKS", "QUICK", "Setup", "build", "firing_rates", "sample"]


def _cnn(T: int, width: float, generator: torch.Generator) -> SNN:
    return CNN(1, 10, T, width=max(1, round(32 * width)), neuron=_neuron(), generator=generator)


def _vgg5(T: int, width: float, generator: torch.Generator) -> SNN:
    return VGG5(3, 10, T, width=width, neuron=_neuron(), generator=generator)


def _vgg11(T: int, width: float, generator: torch.Generator) -> SNN:
    return VGG11(3, 10, T, width=width, neuron=_neuron(), generator=generator)


def _wrn(T: int, width: float, generator: torch.Generator) -> SNN:
    return WRN16_4(3, 10, T, width=width, neuron=_neuron(), generator=generator)


def _neuron() -> LIF:
    return LIF(0.5, v_th=1.0, surrogate=Triangular(1.0), reset="hard")


_FAMILIES: dict[str, Callable[[int, float, torch.Generator], SNN]] = {
    "cnn": _cnn,
    "vgg5": _vgg5,
    "vgg11": _vgg11,
    "wrn16_4": _wrn,
}


@dataclass(frozen=True)
class Setup:
    """Network and batch of a measurement.

    Args:
        family: "cnn" (1 x 28 x 28), "vgg5", "vgg11" or "wrn16_4" (3 x 32 x 32).
        T: Time steps, >= 1.
        batch: Images in a batch, >= 1.
        width: Factor on the widths of all layers, > 0.
    """

    family: str
    T: int
    batch: int
    width: float = 1.0


NETWORKS: dict[str, Setup] = {
    "cnn-t10": Setup("cnn", 10, 128),
    "vgg11-t4": Setup("vgg11", 4, 16),
    "vgg11-t8": Setup("vgg11", 8, 8),
    "wrn-t4": Setup("wrn16_4", 4, 16),
}
QUICK: dict[str, Setup] = {
    "cnn-t10": Setup("cnn", 10, 32),
    "half-vgg11-t4": Setup("vgg11", 4, 8, 0.5),
}
GPU: dict[str, Setup] = {
    "cnn-t10": Setup("cnn", 10, 512),
    "vgg11-t4": Setup("vgg11", 4, 128),
    "vgg11-t8": Setup("vgg11", 8, 64),
    "wrn-t4": Setup("wrn16_4", 4, 128),
}
GPU_QUICK: dict[str, Setup] = {
    "vgg11-t4": Setup("vgg11", 4, 64),
    "wrn-t4": Setup("wrn16_4", 4, 64),
}


def build(setup: Setup) -> SNN:
    """Return the calibrated network in evaluation mode; equal setups give equal weights.

    Batch statistics are those of 16 images, and each linear layer before a neuron is scaled to an
    output of standard deviation 1. With initial weights these neurons would not fire.
    """
    model = _FAMILIES[setup.family](setup.T, setup.width, stream(0, "bench", setup.family))
    x, _ = sample(Setup(setup.family, setup.T, 16, setup.width))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(_scale) for layer in _drives(model)]
    try:
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(x)
    finally:
        for norm in norms:
            norm.momentum = 0.1
        for hook in hooks:
            hook.remove()
    return model.eval()


def sample(setup: Setup) -> tuple[Tensor, Tensor]:
    """Return images [batch, C, H, W] in [0, 1] and labels [batch], the same at every call."""
    shape = (1, 28, 28) if setup.family == "cnn" else (3, 32, 32)
    generator = stream(0, "bench", "images", setup.batch)
    x = torch.rand(setup.batch, *shape, generator=generator)
    return x, torch.randint(10, (setup.batch,), generator=generator)


def firing_rates(model: SNN, x: Tensor) -> list[float]:
    """Return the share of spikes of each spiking layer, in [0, 1], in network order."""
    with torch.no_grad(), record(model) as trace:
        model(x)
    return [float(layer.spikes.mean()) for layer in trace.values()]


def _drives(model: nn.Module) -> list[nn.Linear]:
    """Return the linear layers directly before a neuron."""
    found = []
    for parent in model.modules():
        for layer, after in pairwise(parent.children()):
            if isinstance(layer, nn.Linear) and isinstance(after, Neuron):
                found.append(layer)
    return found


def _scale(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    factor = 1 / float(output.std())
    layer.weight.mul_(factor)
    if layer.bias is not None:
        layer.bias.mul_(factor)
    return output * factor
