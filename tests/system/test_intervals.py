"""Intervals of a mean and of a median against closed forms."""

import math

import pytest

from spikeguard.system.intervals import mean_interval, median_interval


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    middle, low, high = mean_interval([1.0, 2.0, 6.0])
    half = 1.959964 * math.sqrt(7 / 3)  # the variance of 1, 2, 6 is 7
    assert (middle, low, high) == pytest.approx((3, 3 - half, 3 + half))
    assert mean_interval([2.0, 2.0]) == (2, 2, 2)


def test_one_value_has_no_interval():
    middle, low, high = mean_interval([5.0])
    assert middle == 5 and math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize(
    ("n", "outside"),  # the most values left out at each end; P(Bin(n, 1/2) <= outside) <= 2.5 %
    [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (20, 5), (25, 7)],
)
def test_the_interval_of_a_median_leaves_out_as_many_values_as_tables_say(n, outside):
    values = [float(i) for i in range(n)]
    shuffled = values[::2] + values[1::2]
    expected = ((n - 1) / 2, values[outside], values[n - 1 - outside])
    assert median_interval(shuffled) == expected
