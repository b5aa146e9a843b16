"""Read a network as a graph: normalisations and input gains are folded into the weights.

Between two neurons everything is linear. A value is therefore kept as a sum of nodes, each with a
factor for every channel, and a shift. They are folded into the weights before them where nothing
else reads these, into the weights after them where that is exact, and become a 1x1 convolution
elsewhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spikeguard.export.encoder_facts import frame_facts, require_encoder
from spikeguard.export.graph import Flatten, Graph, Node, Pool, Spiking, Weights
from spikeguard.export.neuron_constants import constants_of
from spikeguard.export.refusals import ExportError, require_plain
from spikeguard.kernels.cpu.pooling import as_pair
from spikeguard.models.operational import Dropout
from spikeguard.models.resnet import _Block
from spikeguard.models.sew import _SEWBlock, _SpikingBlock
from spikeguard.models.snn import SNN, TimeSequential
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.noisy_lif import NoisyLIF

__all__ = ["folded", "without_noise"]

_INPUT = "input"
_NOTHING = (Dropout, nn.Dropout, nn.Identity)  # layers that do nothing in evaluation mode


@dataclass(frozen=True, eq=False)
class _Value:
    """A sum of nodes: sum over k of ``scales[k] * output of names[k]``, plus ``shift``.

    Scales and shift are float64 [C]; None is 1 and 0.
    """

    names: tuple[str, ...]
    scales: tuple[Tensor | None, ...]
    shape: tuple[int, ...]
    shift: Tensor | None = None

    def affine(self, scale: Tensor, shift: Tensor | None = None) -> _Value:
        """Return ``scale * value + shift``."""
        scales = tuple(scale if each is None else each * scale for each in self.scales)
        moved = None if self.shift is None else self.shift * scale
        if shift is not None and bool((shift != 0).any()):
            moved = shift if moved is None else moved + shift
        return replace(self, scales=tuple(map(_unless_one, scales)), shift=moved)

    def __add__(self, other: _Value) -> _Value:
        shifts = [each for each in (self.shift, other.shift) if each is not None]
        names, scales = self.names + other.names, self.scales + other.scales
        return _Value(names, scales, self.shape, sum(shifts[1:], shifts[0]) if shifts else None)


def without_noise(model: SNN) -> SNN:
    """Return a copy of a network whose noisy neurons have no noise in testing and in attacks."""
    quiet = copy.deepcopy(model)
    for module in quiet.modules():
        if isinstance(module, NoisyLIF):
            module.noise_in = tuple(phase for phase in module.noise_in if phase == "train")
    return quiet


def folded(model: nn.Module) -> Graph:
    """Read a network in evaluation mode as a graph.

    Raises:
        ExportError: If a part of it has no node in NIR; the message names the part and the reason.
    """
    network = require_plain(model)
    encoder = require_encoder(network)
    shape = network.in_shape[1:] if encoder == "event_frames" else network.in_shape
    reader = _Reader()
    value = _Value((_INPUT,), (None,), shape)
    if network.encoder.normalised:
        mean, std = (_spread(x, shape[0]) for x in (network.mean, network.std))
        value = value.affine(1 / std, -mean / std)
    for name in network._stages:
        value = reader.layer(value, getattr(network, name), name)
    outputs = reader.sources(value, "readout")
    return Graph(reader.nodes, outputs, shape, network.T, encoder, frame_facts(network.encoder))


class _Reader:
    """Adds the nodes of one layer after the other."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._read: set[str] = set()  # nodes whose output is used: nothing is folded into them

    def layer(self, x: _Value, layer: nn.Module, name: str) -> _Value:
        """Return the output of a layer."""
        if isinstance(layer, TimeSequential):
            for key, part in layer.named_children():
                x = self.layer(x, part, f"{name}.{key}")
            return x
        if isinstance(layer, Neuron):
            return self._neuron(x, layer, name)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            return _normalised(x, layer, name)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            return self._weights(x, layer, name)
        if isinstance(layer, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            return self._pool(x, layer, name)
        if isinstance(layer, nn.Flatten):
            return self._flatten(x, name)
        if isinstance(layer, _Block):
            return self._wide_block(x, layer, name)
        if isinstance(layer, _SEWBlock | _SpikingBlock):
            return self._residual_block(x, layer, name)
        if isinstance(layer, _NOTHING):
            return x
        kind = type(layer).__name__
        hint = "; average pooling has one" if isinstance(layer, nn.MaxPool2d) else ""
        raise ExportError(f"{name}: NIR has no node for {kind}{hint}.")

    def sources(self, x: _Value, name: str) -> list[str]:
        """Return the nodes whose plain sum is a value; what cannot be folded becomes a node."""
        shift, factors, found = x.shift, dict(zip(x.names, x.scales, strict=True)), []
        open_ = [each for each in factors if self._folds(each)]
        for each in open_:
            node, scale = self.nodes[each], factors[each]
            assert isinstance(node, Weights)
            if scale is not None:
                node.scale(scale)
            if shift is not None:
                node.bias, shift = node.bias + shift, None
            found.append(each)
        for number, each in enumerate(other for other in factors if other not in open_):
            scale = factors[each]
            if scale is None and shift is None:
                found.append(each)
                continue
            ones = torch.ones(x.shape[0], dtype=torch.float64)
            found.append(
                self._channelwise(
                    *(each, ones if scale is None else scale, shift, x.shape),
                    f"{name}.scale{number or ''}",
                )
            )
            shift = None
        self._read.update(found)
        return found

    def _folds(self, name: str) -> bool:
        return name not in self._read and isinstance(self.nodes.get(name), Weights)

    def _shared(self, x: _Value, name: str) -> _Value:
        """Return a value that several layers read."""
        names = tuple(self.sources(x, name))
        return _Value(names, (None,) * len(names), x.shape)

    def _channelwise(
        self, source: str, scale: Tensor, shift: Tensor | None, shape: tuple[int, ...], name: str
    ) -> str:
        """Add a node that computes scale * x + shift: readers know no node for it but weights."""
        bias = torch.zeros_like(scale) if shift is None else shift
        weight = torch.diag(scale)
        weight = weight[:, :, None, None] if len(shape) == 3 else weight
        return self._add(Weights(_plain(name), [source], shape, weight, bias))

    def _add(self, node: Node) -> str:
        if node.name in self.nodes or node.name == _INPUT:
            raise ExportError(f"{node.name}: two layers of the network have this name.")
        self.nodes[node.name] = node
        return node.name

    def _neuron(self, x: _Value, neuron: Neuron, name: str) -> _Value:
        known = constants_of(neuron, name, x.shape[0])
        gain = known.gain / torch.where(known.leak < 1, 1 - known.leak, 1.0)  # form B
        inputs = self.sources(x.affine(gain), name)
        node = Spiking(_plain(name), inputs, x.shape, name, known.leak, known.v_th)
        return _Value((self._add(node),), (None,), x.shape)

    def _weights(self, x: _Value, layer: nn.Conv2d | nn.Linear, name: str) -> _Value:
        weight = layer.weight.detach().to("cpu", torch.float64)
        bias = torch.zeros(len(weight), dtype=torch.float64)
        if layer.bias is not None:
            bias = layer.bias.detach().to("cpu", torch.float64)
        node = Weights(_plain(name), [], (len(weight),), weight, bias)
        if isinstance(layer, nn.Conv2d):
            if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                padding = f"padding={layer.padding!r}, padding_mode={layer.padding_mode!r}"
                raise ExportError(f"{name}: a convolution with {padding}; NIR pads with zeros.")
            node.stride, node.padding = _pair(layer.stride), _pair(layer.padding)
            node.dilation, node.groups = _pair(layer.dilation), layer.groups
            node.shape = (len(weight), *_size(x.shape, layer.kernel_size, node))
        elif len(x.shape) != 1:
            raise ExportError(f"{name}: a linear layer on {x.shape}; flatten before it.")
        only = x.scales[0]
        exact = x.shift is None or node.padding == (0, 0)
        if len(x.names) == 1 and not self._folds(x.names[0]) and exact and node.groups == 1:
            shape = (1, -1, *[1] * (weight.ndim - 2))
            if x.shift is not None:
                node.bias = bias + (weight * x.shift.view(shape)).flatten(1).sum(1)
            if only is not None:
                node.weight = weight * only.view(shape)
            x = replace(x, scales=(None,), shift=None)
        node.inputs = self.sources(x, name)
        return _Value((self._add(node),), (None,), node.shape)

    def _pool(self, x: _Value, layer: nn.AvgPool2d | nn.AdaptiveAvgPool2d, name: str) -> _Value:
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            asked = layer.output_size
            pair = asked if isinstance(asked, tuple) else (asked, asked)
            size = [
                own if part is None else part for own, part in zip(x.shape[1:], pair, strict=True)
            ]
            if any(side % part for side, part in zip(x.shape[1:], size, strict=True)):
                raise ExportError(
                    f"{name}: AdaptiveAvgPool2d from {list(x.shape[1:])} to {size} has "
                    "windows of several sizes; NIR has one size."
                )
            kernel = (x.shape[1] // size[0], x.shape[2] // size[1])
            stride, padding = kernel, (0, 0)
        else:
            kernel, padding = as_pair(layer.kernel_size), as_pair(layer.padding)
            stride = as_pair(layer.stride)
            plain = layer.divisor_override is None and not layer.ceil_mode
            if not plain or (padding != (0, 0) and not layer.count_include_pad):
                raise ExportError(
                    f"{name}: AvgPool2d with ceil_mode, divisor_override or without "
                    "count_include_pad; NIR has none of these."
                )
        node = Pool(_plain(name), self.sources(x, name), (), kernel, stride, padding)
        node.shape = (x.shape[0], *_size(x.shape, kernel, node))
        return _Value((self._add(node),), (None,), node.shape)

    def _flatten(self, x: _Value, name: str) -> _Value:
        if len(x.shape) == 1:
            return x
        shape = (math.prod(x.shape),)
        node = Flatten(_plain(name), self.sources(x, name), shape)
        return _Value((self._add(node),), (None,), shape)

    def _wide_block(self, x: _Value, block: _Block, name: str) -> _Value:
        if block.shortcut is None:
            x = self._shared(x, name)
        active = self.layer(x, block.activate, f"{name}.activate")
        through = x
        if block.shortcut is not None:
            through = self.layer(active, block.shortcut, f"{name}.shortcut")
        residual = self.layer(active, block.residual, f"{name}.residual")
        first, second = block.join.coefficients.detach().to("cpu", torch.float64)
        channels = residual.shape[0]
        return through.affine(first.expand(channels)) + residual.affine(second.expand(channels))

    def _residual_block(self, x: _Value, block: _SEWBlock | _SpikingBlock, name: str) -> _Value:
        x = self._shared(x, name)
        residual = self.layer(x, block.residual, f"{name}.residual")
        if block.shortcut is not None:
            x = self.layer(x, block.shortcut, f"{name}.shortcut")
        joined = residual + x
        if isinstance(block, _SpikingBlock):
            return self.layer(joined, block.neuron, f"{name}.neuron")
        return joined


def _normalised(x: _Value, norm: nn.BatchNorm1d | nn.BatchNorm2d, name: str) -> _Value:
    if norm.running_mean is None or norm.running_var is None:
        raise ExportError(f"{name}: batch normalisation without running statistics.")
    mean, var = (
        each.detach().to("cpu", torch.float64) for each in (norm.running_mean, norm.running_var)
    )
    scale = (var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().to("cpu", torch.float64)
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().to("cpu", torch.float64)
    return x.affine(scale, shift)


def _size(shape: Sequence[int], kernel: Sequence[int], node: Weights | Pool) -> tuple[int, int]:
    """Return height and width after a convolution or pooling."""
    dilation = node.dilation if isinstance(node, Weights) else (1, 1)
    settings = zip(shape[1:], kernel, node.stride, node.padding, dilation, strict=True)
    height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in settings)
    return height, width


def _spread(x: Tensor, channels: int) -> Tensor:
    """Return one number for each channel, float64."""
    return x.detach().to("cpu", torch.float64).flatten().expand(channels)


def _unless_one(scale: Tensor) -> Tensor | None:
    return None if bool((scale == 1).all()) else scale


def _pair(size: Sequence[int]) -> tuple[int, int]:
    return size[0], size[1]


def _plain(name: str) -> str:
    return name.replace(".", "_")
