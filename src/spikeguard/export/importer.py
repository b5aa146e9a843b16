"""Build one of our networks from a NIR graph, so that every attack and gradient works on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.export.encoder_facts import encoder_of
from spikeguard.export.gradient_facts import Backward, backward_of
from spikeguard.export.interpreter import as_float32, order, pair, reset_of
from spikeguard.export.nir_file import DT, facts_of, read_nir, threshold_above
from spikeguard.export.refusals import ExportError, required
from spikeguard.models.snn import SNN, Temporal, fold, quiet_construction
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.evolutionary import EvolutionaryLIF
from spikeguard.neurons.lif import IF, LIF

__all__ = ["from_nir", "load_nir"]


class _Gain(nn.Module):
    """Multiplies every channel or neuron by a constant."""

    gain: Tensor

    def __init__(self, gain: Tensor):
        super().__init__()
        self.register_buffer("gain", gain)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class _Joined(Temporal):
    """Nodes in the order in which they are computed; the input of each is a sum of outputs."""

    def __init__(self, layers: Mapping[str, list[nn.Module]], inputs: Mapping[str, list[str]]):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.ModuleList(each) for name, each in layers.items()})
        self._inputs = dict(inputs)

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map [T or 1, B, ...] to [T or 1, B, K]."""
        values: dict[str, Tensor] = {}
        for name, sources in self._inputs.items():
            summed = [values[source] for source in sources]
            y = sum(summed[1:], summed[0]) if summed else x
            for layer in self.layers[name]:  # type: ignore[attr-defined]
                y = layer(y, T=T) if isinstance(layer, Neuron) else fold(layer, y)
            values[name] = y
        return y


def load_nir(path: str | Path, *, T: int | None = None) -> SNN:
    """Read a NIR file as a network; see :func:`from_nir`."""
    try:
        return from_nir(read_nir(Path(path)), T=T)
    except ExportError as error:
        where = str(path)
        message = str(error)
        raise ExportError(message if where in message else f"{where}: {message}") from error


def from_nir(graph: Any, *, T: int | None = None) -> SNN:
    """Build a network from a feedforward NIR graph, in evaluation mode.

    Its neurons have the surrogate that the metadata states, or the default. What fires at
    v > v_threshold becomes a neuron that fires at v >= v_th, v_th the float32 number just above.

    Args:
        graph: A ``nir.NIRGraph``. If its metadata states dt, T and the encoder, they are used.
        T: Time steps; needed only if the metadata does not state them.

    Raises:
        ExportError: If a node is not supported, or T is given twice or not at all.
    """
    nir, stated = required("nir", "nir"), facts_of(graph)
    known = stated.get("T")
    if known is not None and T is not None and int(known) != T:
        raise ExportError(f"--T: the file states T = {int(known)}, got {T}; leave it out.")
    steps = T if known is None else int(known)
    if steps is None:
        raise ExportError("--T: the file does not state the number of time steps; pass it.")
    encoder = encoder_of(stated)
    dt, backward = float(stated.get("dt", DT)), backward_of(stated)
    layers: dict[str, list[nn.Module]] = {}
    inputs: dict[str, list[str]] = {}
    with quiet_construction():
        for each in order(graph):
            if _key(each) in layers:
                raise ExportError(f"NIR: two nodes are named {_key(each)!r}, dots as underscores.")
            layers[_key(each)] = _layers(nir, each, graph.nodes[each], dt, steps, backward)
            inputs[_key(each)] = [_key(a) for a, b in graph.edges if b == each]
    ends = [node for node in graph.nodes.values() if isinstance(node, nir.Input | nir.Output)]
    if len(ends) != 2:
        raise ExportError("NIR: the graph needs one Input and one Output node.")
    (shape,) = (tuple(map(int, n.input_type["input"])) for n in ends if isinstance(n, nir.Input))
    (out,) = (tuple(map(int, n.output_type["output"])) for n in ends if isinstance(n, nir.Output))
    if len(out) != 1:
        raise ExportError(f"NIR: the output is {list(out)}, not one number for each class.")
    (last,) = (_key(key) for key, node in graph.nodes.items() if isinstance(node, nir.Output))
    inputs[last] = inputs.pop(last)  # the output is computed last
    return SNN(
        {"graph": _Joined(layers, inputs)},
        T=steps,
        num_classes=out[0],
        in_shape=shape,
        encoder=encoder,
    ).eval()


def _layers(
    nir: Any, name: str, node: Any, dt: float, T: int, backward: Backward
) -> list[nn.Module]:
    """Return the layers of a node, run in sequence."""
    if isinstance(node, nir.Input | nir.Output):
        return []
    if isinstance(node, nir.Conv2d):
        out, inner, *kernel = node.weight.shape
        padding = node.padding if isinstance(node.padding, str) else pair(node.padding)
        sizes = (pair(node.stride), padding, pair(node.dilation), int(node.groups))
        conv = nn.Conv2d(inner * int(node.groups), out, (kernel[0], kernel[1]), *sizes)
        return [_loaded(conv, node.weight, node.bias)]
    if isinstance(node, nir.Affine | nir.Linear):
        if node.weight.ndim != 2:
            raise ExportError(
                f"NIR: node {name} has weights {list(node.weight.shape)}, not [O, I]."
            )
        bias = getattr(node, "bias", None)
        layer = nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=bias is not None)
        return [_loaded(layer, node.weight, bias)]
    if isinstance(node, nir.AvgPool2d):
        return [nn.AvgPool2d(pair(node.kernel_size), pair(node.stride), pair(node.padding))]
    if isinstance(node, nir.Flatten):
        last = len(node.input_type["input"]) - 1
        if int(node.start_dim) != 0 or int(node.end_dim) not in (-1, last):
            raise ExportError(
                f"NIR: node {name} flattens some axes only; all or none are supported."
            )
        return [nn.Flatten()]
    if isinstance(node, nir.Scale):
        return [_Gain(as_float32(node.scale))]
    if isinstance(node, nir.LIF | nir.IF):
        return _neurons(name, node, dt, T, backward, leaky=isinstance(node, nir.LIF))
    raise ExportError(f"NIR: node {name} of type {type(node).__name__} is not supported.")


def _neurons(
    name: str, node: Any, dt: float, T: int, backward: Backward, *, leaky: bool
) -> list[nn.Module]:
    thresholds = np.unique(np.asarray(node.v_threshold, dtype=np.float32))
    leak = np.asarray(node.v_leak) if leaky else np.zeros(1)
    if len(thresholds) != 1 or leak.any() or np.asarray(reset_of(node)).any():
        raise ExportError(
            f"NIR: node {name} needs one v_threshold for all neurons, v_leak 0 and v_reset 0."
        )
    v_th = threshold_above(float(thresholds[0]))
    if v_th <= 0:
        raise ExportError(f"NIR: node {name} has v_threshold {thresholds[0]:g}; it must be > 0.")
    step = dt / np.asarray(node.tau, dtype=np.float64) if leaky else np.full(1, dt)
    gain = np.asarray(node.r, dtype=np.float64) * step
    if not leaky:
        return [*_gained(gain), IF(v_th, **backward)]
    if step.max() >= 1 or step.min() <= 0:
        raise ExportError(
            f"NIR: node {name} has tau {dt / step.max():g} to {dt / step.min():g} s, which must be "
            f"above dt = {dt:g} s."
        )
    if np.ptp(step) == 0:
        if np.ptp(gain) == 0:
            return [LIF(1 - float(step.flat[0]), v_th, input_scale=float(gain.flat[0]), **backward)]
        return [*_gained(gain), LIF(1 - float(step.flat[0]), v_th, **backward)]
    neuron = EvolutionaryLIF(T, node.tau.shape, v_th=v_th, **backward)
    assert neuron.leak is not None
    with torch.no_grad():
        neuron.leak.copy_(as_float32(1 - step))
    return [*_gained(gain), neuron]


def _gained(gain: Any) -> list[nn.Module]:
    """Return a layer that multiplies by a gain, none where it is 1."""
    if np.allclose(gain, 1, rtol=1e-7, atol=0):
        return []
    return [_Gain(as_float32(gain if np.ptp(gain) else gain.flat[0]))]


def _loaded(layer: nn.Conv2d | nn.Linear, weight: Any, bias: Any) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(as_float32(weight))
        if layer.bias is not None:
            layer.bias.copy_(as_float32(bias))
    return layer


def _key(name: str) -> str:
    """Return the name of a node as a name of a module."""
    plain = name.replace(".", "_")
    return f"{plain}_" if hasattr(nn.ModuleDict(), plain) else plain
