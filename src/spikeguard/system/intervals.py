"""Intervals of a proportion (Wilson), a mean and a median, and the tail of the binomial."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Z", "binomial_tail", "mean_interval", "median_interval", "wilson"]

Z = 1.959964  # normal quantile at 97.5 %


def wilson(successes: float, n: int, z: float = Z) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (z = 1.96: 95 %).

    Args:
        successes: Number of successes in [0, n]; may be a sum of fractions.
        n: Sample count, >= 1.
        z: Normal quantile.

    Source: Wilson, "Probable inference ...", JASA 1927.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson: needs 0 <= successes <= n and n >= 1, got {successes:g} of {n}.")
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = max(0.0, centre - half) if successes > 0 else 0.0  # exact at the ends, where
    high = min(1.0, centre + half) if successes < n else 1.0  # centre and half cancel
    return low, high


def binomial_tail(count: int, n: int, p: float) -> float:
    """Return the probability of ``count`` or more successes in n independent trials.

    Args:
        count: Successes; 0 or less gives 1.
        n: Trials, >= 0.
        p: Probability of a success in one trial, in (0, 1).
    """
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
        for k in range(max(count, 0), n + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of independent values and its normal 95 % interval, (mean, low, high).

    The ends are not a number for a single value.

    Example:
        >>> mean_interval([1.0, 3.0])[0]
        2.0
    """
    n = len(values)
    middle = math.fsum(values) / n
    if n == 1:
        return middle, math.nan, math.nan
    variance = math.fsum((value - middle) ** 2 for value in values) / (n - 1)
    half = Z * math.sqrt(variance / n)
    return middle, middle - half, middle + half


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of independent values and its 95 % interval, (median, low, high).

    The ends are order statistics, so that the interval needs no distribution; below six values,
    where it is less than 95 %, they are the least and the greatest value.
    """
    ordered, n = sorted(values), len(values)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    outside = 0  # values left out at each end; too many with probability above 2.5 %
    while outside < (n - 1) // 2 and binomial_tail(n - outside - 1, n, 0.5) <= 0.025:
        outside += 1
    return middle, ordered[outside], ordered[n - 1 - outside]
