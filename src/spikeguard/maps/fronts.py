"""Pareto fronts of a map, and their knees: accuracy, synaptic operations, robust accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from spikeguard.sweeps.table import front

__all__ = ["SYNOPS", "Front", "fronts", "goals", "knee", "number"]

SYNOPS = "synops"  # effective accumulate and multiply-accumulate operations together


@dataclass(frozen=True)
class Front:
    """The cells that no other one dominates.

    Attributes:
        names: The metrics; synaptic operations are minimised, accuracies maximised.
        cells: Places in the list of cells, by the first metric.
        knee: Place of the cell of the front that is nearest to the best of every metric.
    """

    names: tuple[str, ...]
    cells: tuple[int, ...]
    knee: int


def goals(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics of a map: "accuracy", "synops", and "snn@8/255" for each attack."""
    robust = dict.fromkeys(name for cell in cells for name in cell.get("robust", {}))
    return ["accuracy", SYNOPS, *robust]


def number(cell: Mapping[str, Any], name: str) -> float | None:
    """Return a metric of a cell; None for a cell without numbers."""
    if "accuracy" not in cell:
        return None
    if name == "accuracy":
        return float(cell["accuracy"]["accuracy"])
    if name == SYNOPS:
        found = cell["operations"]
        return float(found["effective_acs"] + found["effective_macs"])
    return float(cell["robust"][name]["accuracy"])


def fronts(cells: Sequence[Mapping[str, Any]]) -> list[Front]:
    """Return the front of every pair of metrics, and of every three with the operations."""
    names = goals(cells)
    sets: list[tuple[str, ...]] = [*combinations(names, 2)]
    sets += [each for each in combinations(names, 3) if SYNOPS in each]
    return list(_fronts(cells, sets))


def _fronts(cells: Sequence[Mapping[str, Any]], sets: Sequence[tuple[str, ...]]) -> Iterator[Front]:
    for names in sets:
        values = {place: [number(cell, name) for name in names] for place, cell in enumerate(cells)}
        known = {place: _upward(names, row) for place, row in values.items() if None not in row}
        if not known:
            continue
        places = list(known)
        best = [places[each] for each in front(list(known.values()))]
        best.sort(key=lambda place: (known[place], place))
        yield Front(names, tuple(best), best[knee([known[place] for place in best])])


def _upward(names: Sequence[str], row: Sequence[float | None]) -> list[float]:
    """Return metrics of which more is better."""
    return [
        (-value if name == SYNOPS else value)
        for name, value in zip(names, row, strict=True)
        if value is not None
    ]


def knee(points: Sequence[Sequence[float]]) -> int:
    """Return the place of the point nearest to the best of every metric; more is better.

    Each metric is scaled from 0 at the worst of the points to 1 at the best. The first of equal
    points is returned.

    Example:
        >>> knee([(0.0, 1.0), (0.9, 0.9), (1.0, 0.0)])
        1
    """
    ends = [(min(column), max(column)) for column in zip(*points, strict=True)]

    def away(point: Sequence[float]) -> float:
        gaps = (
            (high - value) / (high - low) if high > low else 0.0
            for value, (low, high) in zip(point, ends, strict=True)
        )
        return math.hypot(*gaps)

    return min(range(len(points)), key=lambda place: away(points[place]))
