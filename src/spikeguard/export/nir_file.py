r"""NIR files: write a graph, read a file, state and read what NIR itself has no field for.

A NIR neuron is continuous in time, tau dv/dt = (v_leak - v) + r I, and fires at v > v_threshold. A
reader integrates it by forward Euler with step dt, so that

.. math::
    v[t] = L\,u[t-1] + (1 - L)\,r\,I[t], \qquad \tau = dt / (1 - L), \quad r = 1

The gain 1 / (1 - L) that r = 1 needs is in the weights before the neuron. A neuron without leak is
an IF node with r = 1 / dt. Our neurons fire at v >= v_th: the threshold in the file is the float32
number just below v_th, so that a tie fires as it does in the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeguard.export.graph import Flatten, Graph, Node, Pool, Spiking, Weights
from spikeguard.export.refusals import ExportError, required

__all__ = [
    "DT",
    "facts_of",
    "read_nir",
    "threshold_above",
    "threshold_below",
    "to_nir",
    "write_nir",
]

DT = 1e-4  # seconds; what snnTorch always and SpikingJelly by default assumes
_ENDS = ("input", "output")


def to_nir(graph: Graph) -> Any:
    """Return a graph as a ``nir.NIRGraph``.

    Raises:
        ExportError: If the package nir is not installed.
    """
    nir = required("nir", "nir")
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(graph.in_shape)})}
    edges: list[tuple[str, str]] = []
    shapes = {"input": graph.in_shape, **{name: node.shape for name, node in graph.nodes.items()}}
    for name, node in graph.nodes.items():
        nodes[name] = _node(nir, node, shapes[node.inputs[0]])
        edges += [(source, name) for source in node.inputs]
    nodes["output"] = nir.Output({"output": np.array(shapes[graph.outputs[0]])})
    edges += [(source, "output") for source in graph.outputs]
    stated = {"T": graph.T, "encoder": graph.encoder, **graph.facts}
    return nir.NIRGraph(nodes, edges, metadata=stated)


def write_nir(graph: Any, path: str | Path) -> None:
    """Write a ``nir.NIRGraph``; the same graph gives the same bytes."""
    required("nir", "nir").write(path, graph)


def read_nir(path: str | Path) -> Any:
    """Read a NIR file.

    Raises:
        ExportError: If the package nir is not installed, or the file is missing, damaged or no NIR.
    """
    nir, path = required("nir", "nir"), Path(path)
    if not path.is_file():
        raise ExportError(f"{path}: no such file.")
    try:
        graph = nir.read(path)
    except Exception as error:  # h5py and nir raise errors of many types
        why = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(f"{path}: not a readable NIR file ({why}).") from error
    if not isinstance(graph, nir.NIRGraph):
        raise ExportError(f"{path}: holds one {type(graph).__name__} node, not a graph.")
    return graph


def facts_of(graph: Any) -> dict[str, Any]:
    """Return the metadata of a graph as Python values."""
    stated: Mapping[str, Any] = graph.metadata
    return {name: v.item() if isinstance(v, np.generic) else v for name, v in stated.items()}


def threshold_below(v_th: float) -> float:
    """Return the float32 number just below: v >= v_th is v > this, for every float32 v."""
    return float(np.nextafter(np.float32(v_th), np.float32(-np.inf)))


def threshold_above(v_threshold: float) -> float:
    """Return the float32 number just above; the inverse of :func:`threshold_below`."""
    return float(np.nextafter(np.float32(v_threshold), np.float32(np.inf)))


def _node(nir: Any, node: Node, shape: tuple[int, ...]) -> Any:
    if isinstance(node, Weights):
        weight, bias = _array(node.weight), _array(node.bias)
        if node.weight.ndim == 2:
            return nir.Affine(weight=weight, bias=bias)
        return nir.Conv2d(
            input_shape=tuple(shape[1:]),
            weight=weight,
            stride=node.stride,
            padding=node.padding,
            dilation=node.dilation,
            groups=node.groups,
            bias=bias,
        )
    if isinstance(node, Pool):
        sizes = (np.array(each) for each in (node.kernel, node.stride, node.padding))
        return nir.AvgPool2d(*sizes)
    if isinstance(node, Flatten):
        return nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
    assert isinstance(node, Spiking)
    channelwise = node.leak.view(-1, *[1] * (len(node.shape) - 1)).expand(node.shape)
    v_threshold = np.full(node.shape, threshold_below(node.v_th))
    if bool((node.leak == 1).all()):
        return nir.IF(r=np.full(node.shape, 1 / DT), v_threshold=v_threshold)
    tau = DT / (1 - channelwise.numpy())  # float64, so that dt / tau is exact for a leak of 1/2
    r, v_leak = np.ones(node.shape), np.zeros(node.shape)
    return nir.LIF(tau=tau, r=r, v_leak=v_leak, v_threshold=v_threshold)


def _array(x: Tensor) -> Any:
    return np.ascontiguousarray(x.to(torch.float32).numpy())
