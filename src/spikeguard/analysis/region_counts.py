"""Linear regions along a line: how often the spike pattern changes between two inputs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.analysis.attacked import traces
from spikeguard.analysis.base import Batch

__all__ = ["RegionCount", "count_regions", "crossings"]

_ROWS = 32  # points in a pass; fixed, because another number can change the last bit of a sum


def crossings(changes: int, intervals: int) -> float:
    r"""Return the expected number of region boundaries on a line, from a count on a grid.

    .. math:: N = -M \ln(1 - c / M)

    Boundaries at random places leave each of M intervals empty with probability
    :math:`e^{-N/M}`. Without the correction, several boundaries in one interval count once.

    Args:
        changes: Intervals c over which the pattern changes, in [0, M].
        intervals: Intervals M of the grid.

    Returns:
        Number of boundaries; infinity if every interval changes.
    """
    return -intervals * math.log1p(-changes / intervals) if changes < intervals else math.inf


@dataclass(frozen=True)
class RegionCount:
    """Changes of the spike pattern along a line.

    Attributes:
        changes: Intervals of the last grid over which the pattern of the network changes. The line
            has at least ``changes + 1`` regions.
        layers: The same for the pattern of each layer alone.
        intervals: Intervals of the last grid.
        moved: Relative change of ``regions - 1`` by the last doubling.
        converged: Whether ``moved`` is within the tolerance.
    """

    changes: int
    layers: dict[str, int]
    intervals: int
    moved: float
    converged: bool

    @property
    def regions(self) -> float:
        """Estimated number of regions: one more than :func:`crossings`."""
        return 1 + crossings(self.changes, self.intervals)


def count_regions(
    model: nn.Module,
    start: Tensor,
    end: Tensor,
    *,
    sample: int = 0,
    seed: int = 0,
    first: int = 64,
    most: int = 1024,
    tolerance: float = 0.05,
) -> RegionCount:
    """Count changes of the spike pattern on the line from start to end, in evaluation mode.

    The pattern is which neurons of all layers spike at which steps. The line is divided into equal
    intervals, and their number is doubled until the estimated number of boundaries moves by at most
    ``tolerance`` of itself or ``most`` is reached. A stochastic network has the same noise at every
    point.

    Args:
        model: A network with spiking layers; left unchanged.
        start: One input [C, H, W].
        end: The other one.
        sample: Number of the image, which identifies its noise.
        seed: Seed of the noise.
        first: Intervals of the first grid, >= 1.
        most: Largest number of intervals, >= 2 first.
        tolerance: Fraction of the boundaries, >= 0.

    Raises:
        ValueError: If an argument is out of range, or the network has no spiking layer.

    Source: TGO (arXiv:2602.20548) Theorem 2, whose K is the number of regions in the ball.
    """
    if first < 1 or most < 2 * first or not tolerance >= 0:
        raise ValueError(
            "count_regions: needs first >= 1, most >= 2 first and tolerance >= 0, got "
            f"{first}, {most} and {tolerance:g}."
        )

    def patterns(numerators: Tensor, intervals: int) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for part in torch.split(numerators, _ROWS):
            # always _ROWS points: the last ones are repeated
            place = torch.cat([part, part[-1:].expand(_ROWS - len(part))])
            weight = (place / intervals).to(start).view(-1, *[1] * start.ndim)
            index = torch.full((_ROWS,), sample)
            batch = Batch(index, start + weight * (end - start), torch.zeros_like(index))
            _, seen = traces(model, batch, batch.x, seed)
            for name, layer in seen.items():
                found.setdefault(name, []).extend(_digests(layer.spikes)[: len(part)])
        return found

    intervals = first
    grid = patterns(torch.arange(first + 1), first)
    found = crossings(_changes(grid)[0], first)
    while True:
        intervals, before = 2 * intervals, found
        between = patterns(torch.arange(1, intervals, 2), intervals)
        grid = {name: _woven(points, between[name]) for name, points in grid.items()}
        changes, layers = _changes(grid)
        found = crossings(changes, intervals)
        moved = 0.0 if found == before == 0 else abs(found - before) / found
        moved = math.inf if math.isnan(moved) else moved  # every interval changes on both grids
        if moved <= tolerance or 2 * intervals > most:
            return RegionCount(changes, layers, intervals, moved, moved <= tolerance)


def _woven(points: list[bytes], between: list[bytes]) -> list[bytes]:
    """Return the points of a grid and those in the middle of its intervals, in order."""
    woven = points + between
    woven[::2], woven[1::2] = points, between
    return woven


def _digests(spikes: Tensor) -> list[bytes]:
    """Return a digest of each sample's spikes [T, B, ...]."""
    rows = (spikes > 0).transpose(0, 1).flatten(1).cpu().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in np.packbits(rows, 1)]


def _changes(grid: dict[str, list[bytes]]) -> tuple[int, dict[str, int]]:
    """Return the number of intervals over which any layer, and each layer, changes."""
    each = {name: np.array([a != b for a, b in pairwise(points)]) for name, points in grid.items()}
    whole = np.logical_or.reduce(list(each.values()))
    return int(whole.sum()), {name: int(changed.sum()) for name, changed in each.items()}
