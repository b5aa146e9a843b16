"""Interpreter of NIR graphs, independent of the networks and neurons of this package.

It computes what the definition of the nodes says, by forward Euler with step dt, in float32. An
export is checked by it, after the file is read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spikeguard.export.nir_file import DT
from spikeguard.export.refusals import ExportError, required

__all__ = ["Replay", "as_float32", "order", "pair", "replay", "reset_of"]


@dataclass(frozen=True, eq=False)
class Replay:
    """What a graph computed.

    Attributes:
        output: Output of every step [T, B, K].
        spikes: Spikes of every LIF and IF node [T, B, *N].
        v: Their potentials before reset.
    """

    output: Tensor
    spikes: dict[str, Tensor]
    v: dict[str, Tensor]


def order(graph: Any) -> list[str]:
    """Return the names of the nodes, each after its inputs.

    Raises:
        ExportError: If the graph is recurrent.
    """
    before: dict[str, set[str]] = {name: set() for name in graph.nodes}
    for source, target in graph.edges:
        before[target].add(source)
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise ExportError("NIR: the graph is recurrent; only feedforward graphs run.") from error


@torch.no_grad()
def replay(
    graph: Any, x: Tensor, *, dt: float = DT, given: Mapping[str, Tensor] | None = None
) -> Replay:
    """Run a feedforward NIR graph.

    Args:
        graph: A ``nir.NIRGraph``.
        x: Input of every step [T, B, *in_shape].
        dt: Time step, in the units of the graph's time constants (s).
        given: Spikes by the name of a node, which the nodes after it get instead of its own.

    Raises:
        ExportError: If the graph is recurrent or holds a node that is not supported.
    """
    nir = required("nir", "nir")
    values: dict[str, Tensor] = {}
    spikes, potentials = {}, {}
    output = x
    for name in order(graph):
        node = graph.nodes[name]
        sources = [values[a] for a, b in graph.edges if b == name]
        inputs = sum(sources[1:], sources[0]) if sources else x
        if isinstance(node, nir.Input | nir.Output):
            values[name] = output = inputs
        elif isinstance(node, nir.LIF | nir.IF):
            spikes[name], potentials[name] = _fire(
                node, inputs, dt, leaky=isinstance(node, nir.LIF)
            )
            values[name] = spikes[name] if given is None else given[name]
        else:
            y = _stateless(nir, name, node, inputs.flatten(0, 1))
            values[name] = y.view(*inputs.shape[:2], *y.shape[1:])
        if isinstance(node, nir.Output):
            output = values[name]
    return Replay(output, spikes, potentials)


def _fire(node: Any, current: Tensor, dt: float, *, leaky: bool) -> tuple[Tensor, Tensor]:
    r, threshold, reset = (as_float32(x) for x in (node.r, node.v_threshold, reset_of(node)))
    step = as_float32(dt / np.asarray(node.tau, dtype=np.float64)) if leaky else torch.tensor(dt)
    v = torch.zeros_like(current[0])
    spikes, potentials = torch.empty_like(current), torch.empty_like(current)
    for t, drive in enumerate(current):
        v = v + step * ((as_float32(node.v_leak) - v) + r * drive if leaky else r * drive)
        fired = v > threshold
        spikes[t], potentials[t] = fired, v
        v = torch.where(fired, reset, v)
    return spikes, potentials


def _stateless(nir: Any, name: str, node: Any, x: Tensor) -> Tensor:
    if isinstance(node, nir.Conv2d):
        padding = node.padding if isinstance(node.padding, str) else pair(node.padding)
        weight, bias = as_float32(node.weight), as_float32(node.bias)
        stride, dilation = pair(node.stride), pair(node.dilation)
        return F.conv2d(x, weight, bias, stride, padding, dilation, int(node.groups))
    if isinstance(node, nir.Affine):
        return F.linear(x, as_float32(node.weight), as_float32(node.bias))
    if isinstance(node, nir.Linear):
        return F.linear(x, as_float32(node.weight))
    if isinstance(node, nir.Scale):
        return x * as_float32(node.scale)
    if isinstance(node, nir.AvgPool2d):
        return F.avg_pool2d(x, pair(node.kernel_size), pair(node.stride), pair(node.padding))
    if isinstance(node, nir.Flatten):
        end = int(node.end_dim)
        return x.flatten(int(node.start_dim) + 1, end + 1 if end >= 0 else end)
    raise ExportError(f"NIR: node {name} of type {type(node).__name__} is not supported.")


def reset_of(node: Any) -> Any:
    """Return the potential after a spike of every neuron of a node."""
    found = getattr(node, "v_reset", None)  # nir 1.0.4 has no such field: the reset is to 0
    return np.zeros_like(node.v_threshold) if found is None else found


def as_float32(x: Any) -> Tensor:
    """Return the numbers of a node as a float32 tensor."""
    return torch.as_tensor(np.asarray(x), dtype=torch.float32)


def pair(x: Any) -> tuple[int, int]:
    """Return a size of a node, one number or two, as (rows, columns)."""
    first, *rest = np.asarray(x).ravel().tolist()
    return int(first), int(rest[0] if rest else first)
