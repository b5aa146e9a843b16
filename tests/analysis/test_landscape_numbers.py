"""Roughness and peaks of curves and grids whose answer is known."""

import math

import numpy as np
import pytest

from spikeguard.analysis.landscape_numbers import (
    coordinates,
    interval,
    landscape_measurement,
    peaks,
    require_grid,
    roughness,
)

X = coordinates(17, 2.0)


def test_coordinates_contain_the_centre_and_whole_units_exactly():
    assert X[8] == 0 and X[12] == 1 and X[4] == -1
    assert (X[0], X[-1], len(X)) == (-2, 2, 17)
    assert np.array_equal(X, -X[::-1])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (X, 0),
        (np.exp(3 * X), 0),
        (np.round(X), 0),  # steps
        (X**2, 1),
        (-abs(X), 1),
        (np.cos(np.pi * X), 3),  # two valleys and three tops: four swings
        ((-1.0) ** np.arange(17), 15),
    ],
    ids=["line", "exponential", "stairs", "valley", "ridge", "waves", "saw"],
)
def test_roughness_of_known_curves_whatever_their_scale(line, expected):
    assert roughness(line) == pytest.approx(expected, abs=1e-12)
    assert roughness(5 - 100 * line) == pytest.approx(expected, abs=1e-12)


def test_the_roughness_of_a_constant_is_undefined_and_left_out_of_the_mean():
    found = roughness(np.stack([np.ones(17), X, X**2]))
    assert math.isnan(found[0]) and found[1:].tolist() == [0, 1]
    middle, half, n = interval(found)
    assert (middle, n) == (0.5, 2)
    assert half == pytest.approx(1.959964 * math.sqrt(0.5) / math.sqrt(2))
    assert math.isnan(interval(found[:1])[0]) and interval(found[:1])[2] == 0


def bumps(*places, height=1.0):
    grid = np.zeros((9, 9))
    for place in places:
        grid[place] = height
    return grid


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (np.zeros((9, 9)), 0),
        (np.add.outer(X, X), 0),
        (-np.add.outer(X**2, X**2), 1),
        (np.add.outer(X**2, X**2), 0),  # the corners are at the border
        (bumps((2, 2), (5, 6)), 2),
        (bumps((2, 2), (2, 3)), 0),  # a plateau has no point above all neighbours
        (bumps((2, 2)) + bumps((5, 5), height=0.00009), 1),  # ripples do not count
    ],
    ids=["flat", "plane", "hill", "bowl", "two", "plateau", "ripple"],
)
def test_peaks_of_known_grids(grid, expected):
    assert peaks(grid) == expected
    assert peaks(np.stack([3 * grid + 1, np.zeros_like(grid)])).tolist() == [expected, 0]


@pytest.mark.parametrize(("points", "span"), [(4, 1.0), (1, 1.0), (5, 0.0), (5, math.inf)])
def test_a_grid_without_centre_or_extent_is_rejected(points, span):
    with pytest.raises(ValueError, match=r"Landscape: (points is odd|span is positive)"):
        require_grid("Landscape", points, span)
    require_grid("Landscape", 5, 0.5)


def test_the_lines_are_those_through_the_centre():
    """Loss 1 + a + b^2 for every image: rising along the gradient, a valley across it."""
    one = 1 + np.add.outer(X, X**2)
    losses = np.broadcast_to(one, (2, 3, 17, 17)).astype(np.float32)
    found = landscape_measurement("landscape", {}, X, losses, losses < 1, "eps")
    assert np.allclose(found["roughness"][:, 0], 0, atol=1e-6)
    assert np.allclose(found["roughness"][:, 1], 1, atol=1e-6)
    assert found.number("loss", place="clean", along=2.0, across=-1.0) == pytest.approx(4)
    assert found.number("accuracy", place="attacked", along=-1.0, across=0.5) == 1
    assert np.allclose(found["centre"], 1) and np.allclose(found["held"], (one < 1).mean())
