"""Intervals over images: closed forms and coverage."""

import math

import numpy as np
import pytest

from spikeguard.analysis.intervals import mean_interval, median_interval


def test_mean_of_three_numbers():
    mean, low, high = mean_interval([1, 2, 3])
    assert mean == 2
    assert (high - mean, mean - low) == pytest.approx([1.959964 / math.sqrt(3)] * 2)
    assert math.isnan(mean_interval([5.0])[1])


def test_median_leaves_out_nan_and_needs_six_values():
    assert median_interval([3, math.nan, 1, 2])[0] == 2
    assert median_interval([1, 2, 3, 4, 5]) == (3, 1, 5)  # less than 95 %, as few values allow
    assert math.isnan(median_interval([])[0])
    assert median_interval(range(6)) == (2.5, 0, 5)
    assert median_interval(range(1, 101)) == (50.5, 40, 61)  # the ranks of the usual table


def test_intervals_contain_the_truth_in_about_95_of_100_samples():
    draws = np.random.default_rng(0).normal(size=(2000, 50))
    for interval in (mean_interval, median_interval):
        inside = sum(low <= 0 <= high for _, low, high in map(interval, draws))
        assert 0.93 <= inside / 2000 <= 0.98
