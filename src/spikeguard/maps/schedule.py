"""The schedule of a map: a coarse grid first, then the cells where the map changes.

The map is divided into blocks whose corners are measured. A block is divided at its middle when
its corners differ in class or accuracy, down to neighbouring cells. What is to be measured depends
on the cells that are known, not on the order in which they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

__all__ = ["STEP", "Place", "Seen", "coarse", "differ", "missing"]

Place = tuple[int, int]  # number of the value of x and of y
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
    wanted: set[Place] = set()
    rows = product(pairwise(coarse(nx)), pairwise(coarse(ny)))
    todo = [(x, y) for x, y in rows]
    while todo:
        (left, right), (low, high) = todo.pop()
        corners = list(product(sorted({left, right}), sorted({low, high})))
        absent = [corner for corner in corners if corner not in known]
        wanted.update(absent)
        if not absent and differ([known[corner] for corner in corners]):
            xs, ys = list(_halves(left, right)), list(_halves(low, high))
            if len(xs) * len(ys) > 1:
                todo += product(xs, ys)
    return sorted(wanted)


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
