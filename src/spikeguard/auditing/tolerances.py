"""Estimates with intervals, the sequential rule by which checks decide, and percentages.

A check compares a share of samples, a difference of accuracies or a mean with a limit. It fails if
the whole interval lies above the limit and passes if none of it does. If the interval contains the
limit, the check looks at more samples: at n, 2n and 4n, as far as there are images. Each side of an
interval may be wrong in 2.5 % of the cases over all looks together (Bonferroni: 2.5 % / looks at
each look), so at a share that equals the limit at most 5 % of the decisions are false.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

__all__ = [
    "LUCK",
    "Estimate",
    "average",
    "difference",
    "fooled_alone",
    "looks",
    "percent",
    "share",
    "worst_of",
]

LUCK = 0.10
"""Limit of the share of samples that a sound network may lose to luck, and of a difference.

Soundly trained spiking networks show up to 5 % (``docs/audit.md``). The limit is twice that, so
that a few hundred samples decide.
"""

_SIDE = 0.025  # error rate of one side of an interval, over all looks
_GROWTH = (1, 2, 4)  # samples of a look, as multiples of the first
_FEWEST = 8  # fewest values whose spread gives an interval of their mean


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval, such as a share in [0, 1] or a difference in [-1, 1]."""

    value: float
    low: float
    high: float

    def above(self, limit: float) -> bool | None:
        """Return whether the value exceeds a limit; None if the interval contains the limit.

        Example:
            >>> share(3, 10).above(0.1), share(0, 100).above(0.1), share(40, 100).above(0.1)
            (None, False, True)
        """
        if self.low > limit:
            return True
        return False if self.high <= limit else None

    def away(self, limit: float) -> bool | None:
        """Return whether the size of a value exceeds a limit; None if that is undecided."""
        return worst_of(
            self.above(limit), Estimate(-self.value, -self.high, -self.low).above(limit)
        )

    def __str__(self) -> str:
        return f"{percent(self.value)} [{_number(self.low)}, {_number(self.high)}]"


def looks(first: int, available: int) -> tuple[int, ...]:
    """Return the numbers of samples at which a check may decide, the first one being the least.

    Example:
        >>> looks(64, 200), looks(64, 50)
        ((64, 128, 200), (50,))
    """
    return tuple(sorted({min(first * growth, available) for growth in _GROWTH}))


def share(count: float, n: int, looks: int = 1) -> Estimate:
    """Return a share of n samples with its exact interval.

    A count that is no integer, a sum of shares of noise draws, is rounded away from the share.

    Args:
        count: Number of samples in [0, n].
        n: Number of samples, >= 1.
        looks: Number of looks that share the error rate, >= 1.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits ...", Biometrika 1934.
    """
    few, many = math.floor(count + 1e-9), math.ceil(count - 1e-9)
    side = _SIDE / looks
    low = 0.0 if few == 0 else 1 - _highest(n - few, n, side)
    high = 1.0 if many == n else _highest(many, n, side)
    return Estimate(count / n, low, high)


def difference(higher: Tensor, lower: Tensor, looks: int = 1) -> Estimate:
    """Return the mean of a paired difference with its interval, from values in [0, 1].

    Args:
        higher: Share of draws on which each sample is correct in one measurement [N].
        lower: The same in the other measurement [N].
        looks: Number of looks that share the error rate, >= 1.

    Source: Agresti and Min, Statistics in Medicine 2005: half a sample is added to each of the four
        cells of a paired table.
    """
    gap = higher.double() - lower.double()
    n = len(gap) + 2
    middle = float(gap.sum()) / n
    variance = (float(gap.square().sum()) + 1) / n - middle**2
    half = _quantile(looks) * math.sqrt(variance / n)
    return Estimate(float(gap.mean()), middle - half, middle + half)


def average(values: Tensor, looks: int = 1) -> Estimate:
    """Return the mean of some values [N] with its normal interval; unbounded for fewer than 8."""
    middle = float(values.mean())
    if len(values) < _FEWEST:
        return Estimate(middle, -math.inf, math.inf)
    half = _quantile(looks) * float(values.std()) / math.sqrt(len(values))
    return Estimate(middle, middle - half, middle + half)


def worst_of(*above: bool | None) -> bool | None:
    """Return whether one of several limits is exceeded; None if no one is but some are undecided.

    Example:
        >>> worst_of(None, True), worst_of(False, None), worst_of(False, False)
        (True, None, False)
    """
    if any(above):
        return True
    return None if None in above else False


def fooled_alone(right: Tensor, others: Tensor) -> int:
    """Return how many samples one attack fools and the others do not.

    Args:
        right: Share of draws on which each sample is correct under the attack [N].
        others: Share of draws on which each sample is correct under the others [N].
    """
    return int((others - right > 0.5).sum())


def percent(share: float) -> str:
    """Format a share as a percentage.

    Example:
        >>> percent(0.425), percent(0.6)
        ('42.5 %', '60 %')
    """
    return f"{_number(share)} %"


def _number(share: float) -> str:
    text = f"{100 * share:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _quantile(looks: int) -> float:
    return NormalDist().inv_cdf(1 - _SIDE / looks)


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
