"""Durations as people say them."""

from __future__ import annotations

import math

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """Format a duration in hours, minutes or whole seconds, at least 1 s.

    Example:
        >>> duration(0.2), duration(90), duration(9000)
        ('1 s', '1.5 min', '2.5 h')
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(1, math.ceil(seconds))} s"
