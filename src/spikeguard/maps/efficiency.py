"""Efficiency eta of the cells of a map: accuracy over spikes, under two normalisations.

Source: operational-space paper, Eq. 8, which does not say how both are normalised.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ETAS", "eta_max", "eta_minmax"]

ETAS = {
    "eta_max": "(accuracy / largest accuracy) / (spikes / most spikes)",
    "eta_minmax": "accuracy over spikes, both scaled from 0 at the map's least to 1 at its most",
}


def eta_max(accuracy: Sequence[float], spikes: Sequence[float]) -> list[float | None]:
    """Return eta of each cell, each number divided by the largest of the map.

    None for a cell without spikes, or where no cell has an accuracy above 0.

    Example:
        >>> eta_max([0.9, 0.45], [100.0, 10.0])
        [1.0, 5.0]
    """
    top, most = max(accuracy, default=0.0), max(spikes, default=0.0)
    return [
        (a / top) / (s / most) if s > 0 and top > 0 else None
        for a, s in zip(accuracy, spikes, strict=True)
    ]


def eta_minmax(accuracy: Sequence[float], spikes: Sequence[float]) -> list[float | None]:
    """Return eta of each cell, each number scaled from the least of the map to the largest.

    None for the cells with the fewest spikes, or where all accuracies are equal.

    Example:
        >>> eta_minmax([0.9, 0.1, 0.5], [110.0, 10.0, 60.0])
        [1.0, None, 1.0]
    """
    least, top = min(accuracy, default=0.0), max(accuracy, default=0.0)
    few, most = min(spikes, default=0.0), max(spikes, default=0.0)
    return [
        ((a - least) / (top - least)) / ((s - few) / (most - few))
        if s > few and top > least
        else None
        for a, s in zip(accuracy, spikes, strict=True)
    ]
