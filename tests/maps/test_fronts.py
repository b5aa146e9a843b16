"""Pareto fronts and knees of maps whose answer is known."""

from itertools import product

import pytest

from spikeguard.maps.fronts import fronts, goals, knee
from tests.toys.maps import TAU, V_TH, toy_cell

TAUS, V = (2.0, 3.0, 4.0), (0.5, 1.0, 1.5, 2.5)
CELLS = [toy_cell(v, tau) for tau, v in product(TAUS, V)]


def on(names):
    (found,) = (each for each in fronts(CELLS) if each.names == names)
    return {(CELLS[p]["point"][TAU], CELLS[p]["point"][V_TH]) for p in found.cells}, found


def test_pairs_and_threes_of_the_metrics():
    assert goals(CELLS) == ["accuracy", "synops", "fgsm@0.1"]
    assert [each.names for each in fronts(CELLS)] == [
        ("accuracy", "synops"),
        ("accuracy", "fgsm@0.1"),
        ("synops", "fgsm@0.1"),
        ("accuracy", "synops", "fgsm@0.1"),
    ]


def test_the_front_of_accuracy_and_operations_is_the_row_of_the_least_tau():
    """tau costs operations alone; the silent cells cost 1, so one of each tau is as good."""
    cells, _ = on(("accuracy", "synops"))
    assert cells == {(2.0, 0.5), (2.0, 1.0), (2.0, 1.5), *((tau, 2.5) for tau in TAUS)}


def test_the_front_of_accuracy_and_robustness_ends_at_both_optima():
    """Above v_th = 1 both fall; tau changes neither."""
    assert on(("accuracy", "fgsm@0.1"))[0] == set(product(TAUS, (0.5, 1.0)))


def test_the_front_of_three_holds_those_of_two():
    cells, _ = on(("accuracy", "synops", "fgsm@0.1"))
    assert cells == {(2.0, 0.5), (2.0, 1.0), (2.0, 1.5), *((tau, 2.5) for tau in TAUS)}


def test_cells_without_numbers_are_left_out():
    error = {"point": {TAU: 2.0, V_TH: 9.0}, "class": "not converged", "error": "diverged"}
    assert [each.cells for each in fronts([*CELLS, error])] == [e.cells for e in fronts(CELLS)]
    assert fronts([error]) == []


@pytest.mark.parametrize(
    ("points", "place"),
    [
        ([(0, 10), (9, 9), (10, 0)], 1),
        ([(0, 1000), (0.9, 900), (1, 0)], 1),  # units do not matter
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.9, 0.9, 0.9)], 3),
        ([(5, 5)], 0),
        ([(1, 2), (2, 1)], 0),
    ],
)
def test_the_knee_is_nearest_to_the_best_of_all(points, place):
    assert knee(points) == place
