"""Intervals of differences: published values, and a paired gap that is a share."""

import math

import pytest
import torch

from spikeguard.evaluation.statistics import Gap, Score, poisson_interval, wilson


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_the_unpaired_gap_is_newcombes_method_10(first, second, low, high):
    """Table II of Newcombe, Statistics in Medicine 17, 1998, pages 873-890."""
    scores = [Score.from_share(k / n, n) for k, n in (first, second)]
    gap = Gap.unpaired(*scores)
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=5e-5)
    assert gap.value == pytest.approx(scores[0].accuracy - scores[1].accuracy)


def outcomes(right, n):
    return (torch.arange(n) < right).double()


@pytest.mark.parametrize(
    ("lost", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)]
)
def test_the_gap_to_a_worst_case_is_a_share_with_wilsons_interval(lost, n, low, high):
    """Published intervals of a single proportion: Newcombe, 1998, pages 857-872, method 3."""
    gap = Gap.paired(outcomes(n - 5, n), outcomes(n - 5 - lost, n))
    assert (gap.value, gap.low, gap.high) == pytest.approx((lost / n, low, high), abs=5e-5)


def test_the_paired_gap_depends_on_the_samples_and_not_only_on_the_shares():
    first = outcomes(177, 200)
    gap = Gap.paired(first, outcomes(89, 200))
    assert (gap.value, gap.low, gap.high) == (0.44, *wilson(88, 200))
    unpaired = Gap.unpaired(Score.of(first), Score.of(outcomes(89, 200)))
    assert gap.high - gap.low < unpaired.high - unpaired.low


def test_a_gap_that_noise_makes_negative_somewhere_has_the_interval_of_the_mean():
    first = torch.tensor([1.0, 0.6, 0.2, 0.8])
    second = torch.tensor([0.5, 0.7, 0.1, 0.5])  # differences 0.5, -0.1, 0.1, 0.3
    gap = Gap.paired(first, second)
    half = 1.959964 * (0.2 / 3) ** 0.5 / 2  # variance ((0.3^2 + 0.3^2 + 0.1^2 + 0.1^2) / 3)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_the_lowest_of_several_noisy_scores_has_a_wider_interval():
    first, second = torch.tensor([1.0, 0.6, 0.2, 0.8]), torch.tensor([0.5, 0.7, 0.1, 0.5])
    one, five = (Gap.paired(first, second, chosen_from=k) for k in (1, 5))
    assert (five.high - five.value) / (one.high - one.value) == pytest.approx(2.575829 / 1.959964)


@pytest.mark.parametrize(("first", "second"), [(3, 4), (0, 0)])
def test_a_paired_gap_needs_the_same_samples(first, second):
    with pytest.raises(ValueError, match="needs equally many"):
        Gap.paired(torch.ones(first), torch.ones(second))


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
