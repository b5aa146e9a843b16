"""The schedule: a coarse grid, then the boundaries, whatever the order of the results."""

import random
from itertools import product

import pytest

from spikeguard.maps.schedule import Seen, coarse, differ, missing, region


def drawn(nx, ny, kind, one_by_one=None):
    """Return the cells that the schedule measures of a map, by rounds or in a random order."""
    known = {}
    while wanted := missing(nx, ny, known):
        if one_by_one is not None:
            wanted = [one_by_one.choice(wanted)]
        known |= {place: kind(*place) for place in wanted}
    return known


def half_plane(a, b, c):
    return lambda x, y: Seen("silent" if a * x + b * y > c else "working", 0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    ("n", "places"),
    [(2, [0, 1]), (3, [0, 1, 2]), (5, [0, 2, 4]), (6, [0, 2, 4, 5]), (9, [0, 4, 8]),
     (10, [0, 4, 8, 9]), (17, [0, 8, 16])],
)  # fmt: skip
def test_the_coarse_grid_has_both_ends(n, places):
    assert coarse(n) == places


def test_the_coarse_grid_comes_first_in_the_order_of_the_axes():
    assert missing(5, 3, {}) == list(product([0, 2, 4], [0, 1, 2]))


def test_a_uniform_map_is_measured_on_the_coarse_grid_alone():
    found = drawn(17, 17, lambda x, y: Seen("working", 0.9, 0.88, 0.92))
    assert sorted(found) == list(product([0, 8, 16], [0, 8, 16]))


@pytest.mark.parametrize(("a", "b", "c"), [(1, 1, 13.5), (1, -1, 2.5), (3, 1, 20), (0, 1, 4.5)])
def test_the_boundary_of_a_class_is_found_with_fewer_cells(a, b, c):
    """Every pair of neighbours on both sides of a straight line is measured."""
    n, kind = 17, half_plane(a, b, c)
    found = drawn(n, n, kind)
    for x, y in product(range(n), range(n)):
        for other in ((x + 1, y), (x, y + 1)):
            if max(other) < n and kind(x, y) != kind(*other):
                assert (x, y) in found and other in found
    assert len(found) < 0.6 * n * n


@pytest.mark.parametrize("seed", range(5))
def test_the_cells_do_not_depend_on_the_order_of_the_results(seed):
    kind = half_plane(2, 1, 11.5)
    rounds = drawn(9, 12, kind)
    assert drawn(9, 12, kind, random.Random(seed)) == rounds


def test_a_step_of_the_accuracy_is_refined_and_noise_is_not():
    def at(level):
        return lambda x, y: Seen("working", level(x), level(x) - 0.015, level(x) + 0.015)

    step = drawn(17, 17, at(lambda x: 0.9 if x < 5 else 0.8))
    assert all((x, y) in step for x in (4, 5) for y in range(17))
    noise = drawn(17, 17, at(lambda x: 0.9 if x < 5 else 0.885))
    assert len(noise) == 9


@pytest.mark.parametrize("peak", [(2, 3), (8, 8), (15, 1)])
def test_the_best_cell_of_a_plateau_is_found_with_its_neighbours(peak):
    """Accuracy falls slowly from a peak amid a block, and by a step far away from it."""

    def at(x, y):
        level = 0.9 - 0.001 * (abs(x - peak[0]) + abs(y - peak[1])) - 0.3 * (y > 12)
        return Seen("working", level, level - 0.01, level + 0.01)

    found = drawn(17, 17, at)
    assert max(found, key=lambda place: found[place].accuracy) == peak
    x, y = peak
    assert {(i, j) for i in (x - 1, x, x + 1) for j in (y - 1, y, y + 1)} <= found.keys()
    assert len(found) < 0.6 * 17 * 17
    for seed in range(3):
        assert drawn(17, 17, at, random.Random(seed)) == found


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        (Seen("working", 0.9, 0.89, 0.91), Seen("silent", 0.9, 0.89, 0.91), True),
        (Seen("working", 0.9, 0.89, 0.91), Seen("working", 0.8, 0.79, 0.81), True),
        (Seen("working", 0.9, 0.84, 0.96), Seen("working", 0.8, 0.74, 0.86), False),
        (Seen("working", 0.9, 0.899, 0.901), Seen("working", 0.885, 0.88, 0.89), False),
        (Seen("failed"), Seen("working", 0.9, 0.89, 0.91), True),
        (Seen("failed"), Seen("failed"), False),
    ],
)
def test_two_cells_differ(a, b, apart):
    assert differ([a, b]) is apart and differ([b, a]) is apart


def test_neighbouring_values_are_not_divided():
    assert missing(2, 2, {p: half_plane(1, 0, 0.5)(*p) for p in product((0, 1), (0, 1))}) == []


@pytest.mark.parametrize(("a", "b", "c"), [(1, 1, 13.5), (1, -1, 2.5), (0, 1, 4.5)])
def test_the_region_of_a_class_holds_the_cells_amid_it_that_are_not_measured(a, b, c):
    n, kind = 17, half_plane(a, b, c)
    for name in ("working", "silent"):
        inside = {p for p in product(range(n), range(n)) if kind(*p).kind == name}
        assert region(n, n, drawn(n, n, kind), name) == inside


def test_a_region_of_a_map_in_work_has_measured_corners():
    known = {(x, y): Seen("working") for x in (0, 2) for y in (0, 2)}
    assert region(5, 5, known, "working") == set(product(range(3), range(3)))
    del known[2, 2]
    assert region(5, 5, known, "working") == set(known)
