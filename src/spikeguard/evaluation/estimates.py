"""Shares, differences and means of samples with their 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from spikeguard.evaluation.statistics import Score

__all__ = ["Estimate", "rounded"]

_SIDE = 0.025  # error rate of one side of an interval
_FEWEST = 8  # fewest values whose spread gives an interval of their mean


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval, such as a share in [0, 1] or a difference in [-1, 1].

    ``among`` is the number of intervals that share the error rate, >= 1: the looks at growing
    numbers of samples, or the scores of which the lowest was chosen. Each side of every one is
    wrong in at most 2.5 % / among of the cases (Bonferroni).
    """

    value: float
    low: float
    high: float

    @classmethod
    def share(cls, count: float, n: int, among: int = 1) -> Estimate:
        """Return a share of n samples with its exact interval.

        A count that is no integer, a sum of shares of noise draws, is rounded away from the share.

        Args:
            count: Number of samples in [0, n].
            n: Number of samples, >= 1.
            among: Number of intervals that share the error rate.

        Source: Clopper and Pearson, "The use of confidence or fiducial limits ...", Biometrika
            1934.
        """
        few, many, side = math.floor(count + 1e-9), math.ceil(count - 1e-9), _SIDE / among
        low = 0.0 if few == 0 else 1 - _highest(n - few, n, side)
        high = 1.0 if many == n else _highest(many, n, side)
        return cls(count / n, low, high)

    @classmethod
    def paired(
        cls, first: Tensor, second: Tensor, among: int = 1, *, nested: bool = False
    ) -> Estimate:
        """Return first minus second, two accuracies on the same samples.

        Half a sample is added to each of the four cells of the paired table. Where the second is a
        worst case that includes the first, no difference can be negative: it is a share of the
        samples and has the exact interval of a share. Where all differences have one sign by
        chance, that interval would exclude 0 from the first sample on, and the other one is too
        short at its far end: the interval then contains both.

        Args:
            first: Share of draws on which each sample is correct in one measurement [N].
            second: The same in the other measurement [N].
            among: Number of intervals that share the error rate.
            nested: Whether the second cannot be above the first on any sample; ignored where it is,
                as with other draws of noise.

        Raises:
            ValueError: If the numbers of samples differ or are 0.

        Example:
            >>> print(Estimate.paired(torch.ones(10), torch.zeros(10), nested=True))
            100 % [69.2, 100.0]

        Source: Agresti and Min, Statistics in Medicine 24, 2005.
        """
        if len(first) < 1 or len(second) != len(first):
            raise ValueError(
                f"Estimate.paired: needs equally many samples, got {len(first)} and {len(second)}."
            )
        each = first.double() - second.double()
        total = float(each.sum())
        of_share = cls.share(min(abs(total), float(len(each))), len(each), among)
        if nested and bool((each >= 0).all()):
            return of_share
        n = len(each) + 2
        middle = total / n
        variance = (float(each.square().sum()) + 1) / n - middle**2
        half = _quantile(among) * math.sqrt(variance / n)
        low, high = max(-1.0, middle - half), min(1.0, middle + half)
        if bool((each >= 0).all()):
            low, high = min(low, of_share.low), max(high, of_share.high)
        elif bool((each <= 0).all()):
            low, high = min(low, -of_share.high), max(high, -of_share.low)
        return cls(total / len(each), low, high)

    @classmethod
    def unpaired(cls, first: Score, second: Score) -> Estimate:
        """Return first minus second, two accuracies on different samples.

        Source: Newcombe, "Interval estimation for the difference between independent proportions",
        Statistics in Medicine 17, 1998, method 10.
        """
        value = first.accuracy - second.accuracy
        below = math.hypot(first.accuracy - first.low, second.high - second.accuracy)
        above = math.hypot(first.high - first.accuracy, second.accuracy - second.low)
        return cls(value, value - below, value + above)

    @classmethod
    def mean(cls, values: Tensor, among: int = 1) -> Estimate:
        """Return the mean of values [N] with Student's interval; unbounded for fewer than 8.

        Approximate where the values are skewed.
        """
        middle = float(values.mean())
        if len(values) < _FEWEST:
            return cls(middle, -math.inf, math.inf)
        spread = float(values.std()) / math.sqrt(len(values))
        half = _student(_quantile(among), len(values) - 1) * spread
        return cls(middle, middle - half, middle + half)

    def above(self, limit: float) -> bool | None:
        """Return whether the value exceeds a limit; None if the interval contains the limit.

        Example:
            >>> [Estimate.share(k, 100).above(0.1) for k in (0, 10, 40)]
            [False, None, True]
        """
        if self.low > limit:
            return True
        return False if self.high <= limit else None

    def away(self, limit: float) -> bool | None:
        """Return whether the size of the value exceeds a limit; None if that is undecided."""
        if self.low > limit or self.high < -limit:
            return True
        return False if -limit <= self.low and self.high <= limit else None

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"{rounded(self.value)} % (no interval: fewer than {_FEWEST} values)"
        return f"{rounded(self.value)} % [{rounded(self.low)}, {rounded(self.high)}]"


def _student(z: float, freedom: int) -> float:
    """Return Student's quantile at the level of the normal quantile z, for >= 7 degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + (first + (second + third / freedom) / freedom) / freedom


def rounded(share: float) -> str:
    """Return a share as a percentage with at most one decimal, without the sign.

    Example:
        >>> rounded(0.425), rounded(0.6)
        ('42.5', '60')
    """
    text = f"{100 * share:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _quantile(among: int) -> float:
    return NormalDist().inv_cdf(1 - _SIDE / among)


def _highest(count: int, n: int, side: float) -> float:
    """Return the share at which at most ``count`` of n are seen with probability ``side``."""
    k = torch.arange(count + 1, dtype=torch.float64)
    ways = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    low, high = count / n, 1.0
    for _ in range(50):
        p = (low + high) / 2
        chance = float((ways + k * math.log(p) + (n - k) * math.log1p(-p)).exp().sum())
        low, high = (p, high) if chance > side else (low, p)
    return high
