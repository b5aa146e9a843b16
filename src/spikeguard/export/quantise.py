r"""Quantisation of a graph: weights to 2 to 8 bits, thresholds to a grid.

Symmetric, round to nearest (ties to even), one step Delta per layer or per output channel:

.. math::
    \Delta = \max|w| / (2^{b-1} - 1), \qquad w' = \Delta\,\mathrm{round}(w / \Delta)

Biases keep their precision: on a chip they are added to an accumulator, which has more bits.

Source: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018, with zero point 0.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from spikeguard.export.graph import Graph
from spikeguard.export.refusals import ExportError

__all__ = ["Per", "quantised", "quantised_weights"]

Per = Literal["tensor", "channel"]


def quantised(graph: Graph, *, bits: int | None, per: Per, threshold_grid: float | None) -> Graph:
    """Return a copy of a graph with quantised weights and thresholds.

    Args:
        graph: The graph, with normalisations and gains in its weights.
        bits: Bits of a weight, 2 to 8; None leaves the weights as they are.
        per: One step for a layer ("tensor") or for each output channel ("channel").
        threshold_grid: Thresholds become multiples of this number, at least one; None leaves them.

    Raises:
        ExportError: If bits or threshold_grid is out of range.
    """
    if bits is not None and not 2 <= bits <= 8:
        raise ExportError(f"--weights: bits of a weight, 2 to 8, got {bits}.")
    if threshold_grid is not None and not (threshold_grid > 0 and math.isfinite(threshold_grid)):
        raise ExportError(f"--threshold-grid: a step > 0, got {threshold_grid:g}.")
    found = graph.copy()
    found.facts["weights"] = "float32" if bits is None else f"{bits} bits per {per}"
    found.facts["thresholds"] = "as trained"
    if bits is not None:
        for node in found.weights():
            node.weight = quantised_weights(node.weight, bits, per)
    if threshold_grid is not None:
        found.facts["thresholds"] = f"multiples of {threshold_grid:g}"
        for neuron in found.neurons():
            steps = max(1, round(neuron.v_th / threshold_grid))
            neuron.v_th = float(torch.tensor(steps * threshold_grid, dtype=torch.float32))
    return found


def quantised_weights(weight: Tensor, bits: int, per: Per) -> Tensor:
    """Round weights [O, ...] to multiples of one step, or of a step for each of O channels."""
    levels = 2 ** (bits - 1) - 1
    largest = weight.abs().flatten(1).amax(1)
    largest = largest if per == "channel" else largest.amax().expand(len(weight))
    step = (largest / levels).view(-1, *[1] * (weight.ndim - 1))
    return torch.where(step > 0, (weight / step).round() * step, weight)
