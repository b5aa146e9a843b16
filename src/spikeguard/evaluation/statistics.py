"""Accuracies with intervals: of a count (Wilson), and of the mean over seeds (Student)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

from spikeguard.system.intervals import Z, wilson

__all__ = ["OverSeeds", "Score", "mean", "over_seeds", "poisson_interval", "wilson"]

# Student's t at 97.5 %, for 1, 2, ... degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Score:
    """An accuracy with its Wilson 95 % interval; all in [0, 1], over ``n`` samples."""

    accuracy: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, right: Tensor, among: int = 1) -> Score:
        """Score outcomes [N] in [0, 1].

        Args:
            right: Share of draws on which each sample is correct [N].
            among: Number of scores of which this one was chosen by its outcome; they share the
                error rate of the interval (Bonferroni).
        """
        total, n = float(right.sum()), len(right)
        z = Z if among == 1 else NormalDist().inv_cdf(1 - 0.025 / among)
        low, high = wilson(min(total, float(n)), n, z)
        return cls(total / n, low, high, n)

    @classmethod
    def from_share(cls, accuracy: float, n: int) -> Score:
        """Score an accuracy in [0, 1] that was measured on n samples, n >= 1."""
        return cls(accuracy, *wilson(min(accuracy * n, float(n)), n), n)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval (low, high)."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{100 * self.accuracy:5.1f} %  [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class OverSeeds:
    """An accuracy over several trainings, all in [0, 1].

    Attributes:
        mean: Mean over the seeds.
        low: Lower end of Student's 95 % interval of the mean over seeds, not below 0; None for one
            seed.
        high: Its upper end, not above 1.
        seeds: Each seed's accuracy.
        sampling: Wilson's 95 % interval of one seed's count at the mean: the uncertainty from the
            number of test images, which all seeds share.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]
    sampling: tuple[float, float]

    def __str__(self) -> str:
        each = ", ".join(f"{100 * seed:.1f}" for seed in self.seeds)
        ends = (
            ""
            if self.low is None or self.high is None
            else f" [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        )
        return f"{100 * self.mean:.1f}{ends} ({each})"


def over_seeds(scores: Sequence[Score]) -> OverSeeds:
    """Summarise one accuracy of several trainings.

    Example:
        >>> over_seeds([Score(0.5, 0.4, 0.6, 100), Score(0.6, 0.5, 0.7, 100)]).mean
        0.55
    """
    values = tuple(score.accuracy for score in scores)
    k, n, middle = len(values), min(score.n for score in scores), mean(values)
    sampling = wilson(min(1.0, middle) * n, n)
    if k == 1:
        return OverSeeds(middle, None, None, values, sampling)
    deviation = math.sqrt(sum((value - middle) ** 2 for value in values) / (k - 1))
    half = _T[min(k - 1, len(_T)) - 1] * deviation / math.sqrt(k)
    return OverSeeds(middle, max(0.0, middle - half), min(1.0, middle + half), values, sampling)


def poisson_interval(count: float, z: float = Z) -> tuple[float, float]:
    """Return an interval for the mean of a Poisson variable that was observed once.

    Byar's approximation: the upper end is within 0.6 % of that of the exact interval, the lower end
    at most 0.02 below.

    Args:
        count: The observation, >= 0.
        z: Quantile of the normal distribution; 1.96 for 95 %.
    """
    more = count + 1
    high = more * (1 - 1 / (9 * more) + z / (3 * math.sqrt(more))) ** 3
    if count <= 0:
        return 0.0, high
    low = count * max(0.0, 1 - 1 / (9 * count) - z / (3 * math.sqrt(count))) ** 3
    return low, high


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of at least one value."""
    return sum(values) / len(values)
