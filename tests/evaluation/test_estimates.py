"""Intervals of shares, differences and means: closed forms and published values."""

import math

import pytest
import torch

from spikeguard.evaluation.estimates import Estimate
from spikeguard.evaluation.statistics import Score


@pytest.mark.parametrize("n", [1, 12, 64, 300])
def test_nothing_and_everything_have_a_closed_form(n):
    """At 0 of n the upper end p solves (1 - p)^n = 2.5 %; at n of n it is mirrored."""
    end = 1 - 0.025 ** (1 / n)
    nothing, everything = Estimate.share(0, n), Estimate.share(n, n)
    assert (nothing.low, nothing.high) == (0, pytest.approx(end))
    assert (everything.low, everything.high) == (pytest.approx(1 - end), 1)


@pytest.mark.parametrize(("count", "n", "looks"), [(3, 20, 1), (1, 7, 3), (40, 100, 3)])
def test_the_ends_of_a_share_are_those_of_the_exact_binomial_tail(count, n, looks):
    found = Estimate.share(count, n, looks)

    def tail(p, ks):
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in ks)

    assert tail(found.high, range(count + 1)) == pytest.approx(0.025 / looks, rel=1e-6)
    assert tail(found.low, range(count, n + 1)) == pytest.approx(0.025 / looks, rel=1e-6)


def test_a_fractional_count_is_rounded_away_from_the_share():
    between, below, above = Estimate.share(2.5, 30), Estimate.share(2, 30), Estimate.share(3, 30)
    assert (between.low, between.high) == (below.low, above.high)
    assert Estimate.share(3 - 1e-12, 30).high == Estimate.share(3, 30).high


def test_the_interval_of_a_paired_difference_is_that_of_agresti_and_min():
    """7 samples fall and 2 rise of 50: (7 - 2) / 52 +- 1.96 sqrt((9 + 1) / 52 - ...) / sqrt(52)."""
    first, second = torch.ones(50), torch.ones(50)
    second[:7], first[7:9] = 0, 0
    found, middle = Estimate.paired(first, second), 5 / 52
    half = 1.959964 * math.sqrt((10 / 52 - middle**2) / 52)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), rel=1e-6)


@pytest.mark.parametrize(("among", "quantile"), [(1, 2.262157), (5, 3.249836), (25, 4.296806)])
def test_the_interval_of_a_mean_is_students_and_needs_eight_values(among, quantile):
    """Published quantiles for 9 degrees of freedom at 97.5, 99.5 and 99.9 %."""
    values = torch.arange(10.0) / 10
    half = quantile * math.sqrt(sum((k / 10 - 0.45) ** 2 for k in range(10)) / 9) / math.sqrt(10)
    found = Estimate.mean(values, among)
    assert (found.low, found.high) == pytest.approx((0.45 - half, 0.45 + half), abs=0.005)
    normal = Estimate.mean(values.repeat(1000), among)  # many degrees of freedom
    assert found.high - found.low > 30 * (normal.high - normal.low)
    few = Estimate.mean(values[:7])
    assert few.above(0.1) is None
    assert str(few) == "30 % (no interval: fewer than 8 values)"


# --- differences


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
    gap = Estimate.unpaired(*scores)
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=5e-5)
    assert gap.value == pytest.approx(scores[0].accuracy - scores[1].accuracy)


def outcomes(right, n):
    return (torch.arange(n) < right).double()


@pytest.mark.parametrize(
    ("lost", "n", "low", "high"), [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617)]
)
def test_the_gap_to_a_worst_case_is_a_share_with_the_exact_interval(lost, n, low, high):
    """Published intervals of a single proportion: Newcombe, 1998, pages 857-872, method 5."""
    gap = Estimate.paired(outcomes(n - 5, n), outcomes(n - 5 - lost, n), nested=True)
    assert (gap.value, gap.low, gap.high) == pytest.approx((lost / n, low, high), abs=5e-5)


def test_the_paired_gap_depends_on_the_samples_and_not_only_on_the_shares():
    first = outcomes(177, 200)
    gap = Estimate.paired(first, outcomes(89, 200), nested=True)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.44, 0.37, 0.512), abs=1e-3)
    unpaired = Estimate.unpaired(Score.of(first), Score.of(outcomes(89, 200)))
    assert gap.high - gap.low < unpaired.high - unpaired.low


def test_a_gap_that_noise_makes_negative_somewhere_counts_half_a_sample_in_each_cell():
    first = torch.tensor([1.0, 0.6, 0.2, 0.8])
    second = torch.tensor([0.5, 0.7, 0.1, 0.5])  # differences 0.5, -0.1, 0.1, 0.3
    one, five = (Estimate.paired(first, second, among) for among in (1, 5))
    middle = 0.8 / 6
    half = 1.959964 * math.sqrt(((0.36 + 1) / 6 - middle**2) / 6)
    assert (one.value, one.low, one.high) == pytest.approx((0.2, middle - half, middle + half))
    assert (five.high - middle) / half == pytest.approx(2.575829 / 1.959964)


@pytest.mark.parametrize("n", [20, 64])
def test_that_no_difference_is_negative_by_chance_is_no_reason_for_another_interval(n):
    one, other = outcomes(n - 3, n), outcomes(n, n)
    fall, rise = Estimate.paired(other, one), Estimate.paired(one, other)
    assert (fall.low, fall.high) == pytest.approx((-rise.high, -rise.low))
    assert fall.low < 0 < Estimate.paired(other, one, nested=True).low


@pytest.mark.parametrize(("lost", "gained"), [(0.0, 0.02), (0.02, 0.04), (0.01, 0.02)])
def test_a_small_difference_of_two_attacks_is_covered(lost, gained):
    """By enumeration: the exact probability that the interval holds the true difference."""
    n, covered = 50, 0.0
    for up in range(12):
        for down in range(12):
            chance = math.comb(n, up) * math.comb(n - up, down) * gained**up * lost**down
            chance *= (1 - lost - gained) ** (n - up - down)
            first, second = torch.ones(n), torch.ones(n)
            first[:up], second[up : up + down] = 0, 0
            found = Estimate.paired(first, second)
            covered += chance * (found.low <= lost - gained <= found.high)
    assert covered > 0.94


@pytest.mark.parametrize(("first", "second"), [(3, 4), (0, 0)])
def test_a_paired_gap_needs_the_same_samples(first, second):
    with pytest.raises(ValueError, match="needs equally many"):
        Estimate.paired(torch.ones(first), torch.ones(second))


# --- answers


@pytest.mark.parametrize(
    ("low", "high", "above"), [(0.2, 0.3, True), (0.0, 0.1, False), (0.05, 0.2, None)]
)
def test_an_interval_is_above_below_or_undecided(low, high, above):
    assert Estimate((low + high) / 2, low, high).above(0.1) is above


@pytest.mark.parametrize(
    ("low", "high", "away"),
    [(0.2, 0.3, True), (-0.3, -0.2, True), (-0.1, 0.1, False), (-0.2, 0.05, None)],
)
def test_a_difference_of_either_sign_counts_by_its_size(low, high, away):
    assert Estimate((low + high) / 2, low, high).away(0.1) is away
