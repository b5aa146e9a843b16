"""The Wilson score interval of a proportion, and the tail of the binomial distribution."""

from __future__ import annotations

import math

__all__ = ["Z", "binomial_tail", "wilson"]

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
