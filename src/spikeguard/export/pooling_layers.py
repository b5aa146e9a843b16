"""Average pooling as a convolution, for readers of NIR that have no AvgPool2d node."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeguard.export.interpreter import pair
from spikeguard.export.refusals import required

__all__ = ["without_pooling"]


def without_pooling(graph: Any) -> Any:
    """Return a NIR graph whose AvgPool2d nodes are Conv2d nodes that compute the same means.

    The convolution has C x C kernels, of which those between two channels are 0: some readers
    reject grouped convolutions.

    Args:
        graph: A ``nir.NIRGraph``, for example one read by ``read_nir``.
    """
    nir = required("nir", "nir")
    nodes = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if isinstance(node, nir.AvgPool2d):
            channels, *size = (int(n) for n in node.input_type["input"])
            kernel = pair(node.kernel_size)
            mean = np.full(kernel, 1 / (kernel[0] * kernel[1]))
            weight = np.einsum("oi,hw->oihw", np.eye(channels), mean).astype(np.float32)
            nodes[name] = nir.Conv2d(
                input_shape=tuple(size),
                weight=weight,
                stride=pair(node.stride),
                padding=pair(node.padding),
                dilation=(1, 1),
                groups=1,
                bias=np.zeros(channels, dtype=np.float32),
            )
    return nir.NIRGraph(nodes, list(graph.edges), metadata=dict(graph.metadata))
