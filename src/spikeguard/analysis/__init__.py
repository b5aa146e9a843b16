"""Analyses of a trained network: where its membrane potentials lie."""

from __future__ import annotations

from spikeguard.analysis.membrane import (
    LayerCounts,
    MembraneHistogram,
    default_edges,
    membrane_histogram,
)

__all__ = ["LayerCounts", "MembraneHistogram", "default_edges", "membrane_histogram"]
