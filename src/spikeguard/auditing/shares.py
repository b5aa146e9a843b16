"""When a difference between counts is more than chance, and how shares are written."""

from __future__ import annotations

from spikeguard.evaluation import wilson

__all__ = ["exceeds", "half_width", "percent"]


def half_width(accuracy: float, n: int) -> float:
    """Return half the width of the Wilson 95 % interval: what a difference must exceed to count."""
    low, high = wilson(accuracy * n, n)
    return (high - low) / 2


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
