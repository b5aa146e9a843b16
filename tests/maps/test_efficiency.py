"""Eta of Eq. 8 under both normalisations, against closed forms and the paper's tables."""

import pytest

from spikeguard.maps.efficiency import eta_max, eta_minmax


def test_the_cell_with_most_spikes_and_the_largest_accuracy_has_1():
    assert eta_max([0.97, 0.5], [2e6, 1e6]) == [1.0, pytest.approx(0.5 / 0.97 / 0.5)]
    assert eta_minmax([0.9, 0.1, 0.3], [100.0, 0.0, 50.0]) == [1.0, None, pytest.approx(0.5)]


def test_units_do_not_matter():
    a, s = [0.2, 0.9, 0.7], [10.0, 400.0, 30.0]
    assert eta_max([100 * v for v in a], [1e4 * v for v in s]) == pytest.approx(eta_max(a, s))
    other = eta_minmax([100 * v for v in a], [1e4 * v for v in s])
    assert other[1:] == pytest.approx(eta_minmax(a, s)[1:]) and other[0] is None


def test_where_eta_is_not_defined():
    assert eta_max([0.1, 0.1], [0.0, 0.0]) == [None, None]
    assert eta_max([0.0, 0.0], [1.0, 2.0]) == [None, None]
    assert eta_minmax([0.5, 0.5], [1.0, 2.0]) == [None, None]
    assert eta_max([], []) == eta_minmax([], []) == []


def test_the_papers_row_of_most_efficient_is_beaten_by_its_row_of_most_accurate():
    """Table I gives the MNIST MLP 99.01 %, 2.54e8 spikes, eta 7.74; Table II 97.02 %, 1.29e7."""
    most = 7.74 * 2.54e8  # of the grid, if 99.01 % is its best accuracy
    found = eta_max([0.9901, 0.9702, 0.5], [2.54e8, 1.29e7, most])
    assert found[0] == pytest.approx(7.74) and found[1] == pytest.approx(149, abs=1)
