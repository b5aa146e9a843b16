"""Statistical tolerances for accuracies and counts, and the format of percentages."""

from __future__ import annotations

from torch import Tensor

from spikeguard.evaluation.statistics import wilson

__all__ = ["LUCK", "exceeds", "fooled_alone", "half_width", "percent", "room_between"]

LUCK = 0.05  # share of samples that a weaker attack alone may fool by luck
_ALWAYS = 0.01  # smaller differences between accuracies never count


def half_width(accuracy: float, n: int) -> float:
    """Return half the width of the Wilson 95 % interval, which a difference must exceed."""
    low, high = wilson(accuracy * n, n)
    return (high - low) / 2


def room_between(accuracy: float, n: int) -> float:
    """Return the tolerated difference of two accuracies: max(1 point, half an interval)."""
    return max(_ALWAYS, half_width(accuracy, n))


def fooled_alone(right: Tensor, others: Tensor) -> int:
    """Return how many samples one attack fools and the others do not.

    Args:
        right: Share of draws on which each sample is correct under the attack [N].
        others: Share of draws on which each sample is correct under the others [N].
    """
    return int((others - right > 0.5).sum())


def exceeds(count: float, n: int, share: float) -> bool:
    """Whether a count of n exceeds a share by more than chance: by its whole Wilson interval.

    Example:
        >>> exceeds(2, 100, 0.01), exceeds(3, 100, 0.01)
        (False, True)
    """
    return count > 0 and wilson(count, n)[0] > share


def percent(share: float) -> str:
    """Format a share as a percentage.

    Example:
        >>> percent(0.425), percent(0.6)
        ('42.5 %', '60 %')
    """
    return f"{100 * share:.1f}".removesuffix(".0") + " %"
