"""When a difference between counts is more than chance, and how shares are written."""

from __future__ import annotations

from torch import Tensor

from spikeguard.evaluation.statistics import wilson

__all__ = ["LUCK", "exceeds", "fooled_alone", "half_width", "percent", "room_between"]

LUCK = 0.05  # samples on which a weaker attack may be luckier than a stronger one
_ALWAYS = 0.01  # a smaller difference between accuracies never counts


def half_width(accuracy: float, n: int) -> float:
    """Return half the width of the Wilson 95 % interval: what a difference must exceed to count."""
    low, high = wilson(accuracy * n, n)
    return (high - low) / 2


def room_between(accuracy: float, n: int) -> float:
    """Return how far two accuracies may differ."""
    return max(_ALWAYS, half_width(accuracy, n))


def fooled_alone(right: Tensor, others: Tensor) -> int:
    """Return how many samples one attack fools and the others do not.

    Args:
        right: Share of noise draws on which each sample is right under the attack [N].
        others: The same under the others [N].
    """
    return int((others - right > 0.5).sum())


def exceeds(count: float, n: int, share: float) -> bool:
    """Whether a count of n lies above a share by more than chance: its Wilson interval is above it.

    Example:
        >>> exceeds(2, 100, 0.01), exceeds(3, 100, 0.01)
        (False, True)
    """
    return count > 0 and wilson(count, n)[0] > share


def percent(share: float) -> str:
    """Write a share for people.

    Example:
        >>> percent(0.425), percent(0.6)
        ('42.5 %', '60 %')
    """
    return f"{100 * share:.1f}".removesuffix(".0") + " %"
