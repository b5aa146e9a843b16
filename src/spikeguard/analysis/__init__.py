"""Analyses of a trained network: histogram of its potentials, zeros in its gradient."""

from __future__ import annotations

from spikeguard.analysis.membrane import (
    LayerCounts,
    MembraneHistogram,
    default_edges,
    membrane_histogram,
)
from spikeguard.analysis.zero_gradients import OperationGradient, operation_gradients

__all__ = [
    "LayerCounts",
    "MembraneHistogram",
    "OperationGradient",
    "default_edges",
    "membrane_histogram",
    "operation_gradients",
]
