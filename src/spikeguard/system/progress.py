"""Types of the callbacks that report the progress of long work."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ProgressCallback", "TaskProgressCallback"]

ProgressCallback = Callable[[int, int, str], None]
"""Called with (steps done, steps in total, what runs now)."""

TaskProgressCallback = Callable[[str, int, int, str], None]
"""Called with (task, steps done, steps in total, what runs now), for tasks in several processes."""
