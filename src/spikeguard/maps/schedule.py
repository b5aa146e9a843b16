"""The schedule of a map: a coarse grid first, then the cells where the map changes.

The map is divided into blocks whose corners are measured. A block is divided at its middle when
its corners differ in class or accuracy, down to neighbouring cells. Then the neighbours of the most
accurate corner are measured, and those of the best among them, until none is more accurate: on a
plateau no block says where the best cell is. What is to be measured depends on the cells that are
known, not on the order in which they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Self

__all__ = ["STEP", "Place", "Seen", "coarse", "differ", "missing", "region"]

Place = tuple[int, int]  # number of the value of x and of y
Block = tuple[tuple[int, int], tuple[int, int]]  # first and last place along x, and along y
STEP = 0.02  # accuracies nearer than this are one level


@dataclass(frozen=True)
class Seen:
    """What the schedule looks at in a measured cell.

    Attributes:
        kind: Its class.
        low: Lower end of the interval of its accuracy; None where it has none.
        high: Upper end.
        accuracy: The accuracy.
    """

    kind: str
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, cell: Mapping[str, Any]) -> Self:
        """Return it for the record of a cell."""
        kind, score = cell["class"] or "failed", cell.get("accuracy")
        if score is None:
            return cls(kind)
        return cls(kind, score["accuracy"], score["low"], score["high"])


def coarse(n: int) -> list[int]:
    """Return the places of the coarse grid along an axis of n values, with both ends.

    The step is the largest power of 2 that divides the axis into two blocks or more.

    Example:
        >>> coarse(10)
        [0, 4, 8, 9]
    """
    step = 1
    while (n - 1) / (2 * step) >= 2:
        step *= 2
    return sorted({*range(0, n, step), n - 1})


def missing(nx: int, ny: int, known: Mapping[Place, Seen]) -> list[Place]:
    """Return the cells to measure next, in the order of the axes; none when the map is finished.

    Args:
        nx: Number of values of x.
        ny: Number of values of y.
        known: The measured cells.
    """
    corners = {corner for block in _blocks(nx, ny, known) for corner in _corners(block)}
    wanted = corners - known.keys()
    return sorted(wanted or _climb(nx, ny, known, corners))


def region(nx: int, ny: int, known: Mapping[Place, Seen], kind: str) -> set[Place]:
    """Return the cells of a class, and those that are not measured amid four such cells.

    Args:
        nx: Number of values of x.
        ny: Number of values of y.
        known: The measured cells.
        kind: The class.
    """
    found = {place for place, cell in known.items() if cell.kind == kind}
    for block in _blocks(nx, ny, known):
        if found >= _corners(block):
            (left, right), (low, high) = block
            inside = product(range(left, right + 1), range(low, high + 1))
            found.update(place for place in inside if place not in known)
    return found


def _climb(nx: int, ny: int, known: Mapping[Place, Seen], corners: set[Place]) -> set[Place]:
    """Return the unknown neighbours of a cell on the way from the best corner to a peak.

    The way leads from a cell to its most accurate neighbour. Nothing is measured where no corner is
    clearly worse than the best one.
    """

    def accuracy(place: Place) -> float:
        found = known[place].accuracy
        return -1.0 if found is None else found

    best = max(sorted(corners), key=accuracy)
    if not any(_apart(known[best], known[corner]) for corner in corners):
        return set()
    while True:
        x, y = best
        across, along = range(max(0, x - 1), min(nx, x + 2)), range(max(0, y - 1), min(ny, y + 2))
        near = set(product(across, along))
        if near - known.keys():
            return near - known.keys()
        top = max(sorted(near), key=accuracy)
        if accuracy(top) <= accuracy(best):
            return set()
        best = top


def _blocks(nx: int, ny: int, known: Mapping[Place, Seen]) -> Iterator[Block]:
    """Yield the blocks that are not divided: their corners are alike, unknown, or neighbours."""
    todo = list(product(pairwise(coarse(nx)), pairwise(coarse(ny))))
    while todo:
        block = todo.pop()
        corners = _corners(block)
        parts = list(product(_halves(*block[0]), _halves(*block[1])))
        if known.keys() >= corners and len(parts) > 1 and differ([known[c] for c in corners]):
            todo += parts
        else:
            yield block


def _corners(block: Block) -> set[Place]:
    return set(product(*block))


def differ(cells: Sequence[Seen]) -> bool:
    """Whether cells have several classes, or accuracies on several levels.

    Two accuracies are on several levels when they are more than ``STEP`` apart and their intervals
    do not overlap.
    """
    if len({each.kind for each in cells}) > 1:
        return True
    scored = [each for each in cells if each.accuracy is not None]
    return any(_apart(a, b) for a, b in product(scored, scored))


def _apart(a: Seen, b: Seen) -> bool:
    if a.accuracy is None or b.accuracy is None or a.accuracy - b.accuracy <= STEP:
        return False
    return a.low is None or b.high is None or a.low > b.high


def _halves(first: int, last: int) -> Iterator[tuple[int, int]]:
    if last - first < 2:
        yield first, last
        return
    middle = (first + last) // 2
    yield first, middle
    yield middle, last
