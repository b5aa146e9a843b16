"""A score that was measured elsewhere."""

import math

import pytest
import torch

from spikeguard.evaluation.statistics import Score, poisson_interval


def outcomes(right, n):
    return (torch.arange(n) < right).double()


def test_a_score_from_a_share_is_the_score_of_its_outcomes():
    assert Score.from_share(0.25, 8) == Score.of(outcomes(2, 8))


def exact_poisson(count):
    """Return the exact 95 % limits of a Poisson mean, by bisection on its distribution function."""

    def at_most(k, mean):
        return sum(math.exp(-mean + i * math.log(mean) - math.lgamma(i + 1)) for i in range(k + 1))

    def solve(k, share):
        low, high = 1e-9, 20.0 + 4 * count
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > share else (low, middle)
        return low

    return solve(count - 1, 0.975) if count else 0.0, solve(count, 0.025)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 20, 100])
def test_the_interval_of_a_poisson_mean_is_near_the_exact_one(count):
    """Published for 2 and 20: [0.242, 7.225] and [12.217, 30.888] (Garwood, 1936)."""
    exact = exact_poisson(count)
    published = {2: (0.2422, 7.2247), 20: (12.2165, 30.8884)}
    assert exact == pytest.approx(published.get(count, exact), abs=2e-4)
    low, high = poisson_interval(count)
    assert high == pytest.approx(exact[1], rel=0.006)
    assert exact[0] - 0.02 < low <= exact[0]


def test_the_interval_of_a_fraction_of_a_count_lies_between():
    lows, highs = zip(*(poisson_interval(count) for count in (1, 1.5, 2)), strict=True)
    assert list(lows) == sorted(lows) and list(highs) == sorted(highs)
