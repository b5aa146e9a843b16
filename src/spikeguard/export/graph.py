"""The graph that is exported: weights, pooling, flattening and neurons, joined by sums."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Flatten", "Graph", "Node", "Pool", "Spiking", "Weights"]

Pair = tuple[int, int]


@dataclass(eq=False)
class Node:
    """A node; its input is the sum of the outputs of ``inputs``.

    Attributes:
        name: Name of the layer in the network, with "_" for ".".
        inputs: Names of the nodes that are summed; "input" is the input of the network.
        shape: Shape of its output for one sample and step.
    """

    name: str
    inputs: list[str]
    shape: tuple[int, ...]


@dataclass(eq=False)
class Weights(Node):
    """A convolution (weight [O, I / groups, h, w]) or a linear layer (weight [O, I]).

    Attributes:
        weight: Weights, float64.
        bias: Bias [O], float64.
        stride: Of a convolution.
        padding: Of a convolution, with zeros.
        dilation: Of a convolution.
        groups: Of a convolution.
    """

    weight: Tensor
    bias: Tensor
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def scale(self, factors: Tensor) -> None:
        """Multiply the output of every channel by a factor [O]."""
        self.weight = self.weight * factors.view(-1, *[1] * (self.weight.ndim - 1))
        self.bias = self.bias * factors


@dataclass(eq=False)
class Pool(Node):
    """Average pooling."""

    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(eq=False)
class Flatten(Node):
    """All axes of a sample in one."""


@dataclass(eq=False)
class Spiking(Node):
    """Neurons: v[t] = L u[t-1] + (1 - L) I[t], or u[t-1] + I[t] where L = 1; hard reset to 0.

    Attributes:
        layer: Name of the neuron in the network, as ``record`` has it.
        leak: Leak factors L, float64 [C], C the first axis of ``shape``.
        v_th: The neuron fires at v >= v_th.
    """

    layer: str
    leak: Tensor
    v_th: float


@dataclass(eq=False)
class Graph:
    """A network as nodes in the order in which they are computed.

    Attributes:
        nodes: The nodes by name.
        outputs: Names of the nodes whose sum is the output of a step, [K].
        in_shape: Shape of the input of one sample and step.
        T: Time steps; the logits are the mean of the outputs over them.
        encoder: "direct" or "event_frames".
        facts: What else the file states about the network.
    """

    nodes: dict[str, Node]
    outputs: list[str]
    in_shape: tuple[int, ...]
    T: int
    encoder: str
    facts: dict[str, str | int | float] = field(default_factory=dict)

    def weights(self) -> list[Weights]:
        """Return the convolutions and linear layers."""
        return [node for node in self.nodes.values() if isinstance(node, Weights)]

    def neurons(self) -> list[Spiking]:
        """Return the layers of neurons."""
        return [node for node in self.nodes.values() if isinstance(node, Spiking)]

    def copy(self) -> Graph:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def round(self) -> None:
        """Round all weights to float32, as the file holds them."""
        for node in self.weights():
            node.weight = node.weight.to(torch.float32).double()
            node.bias = node.bias.to(torch.float32).double()
