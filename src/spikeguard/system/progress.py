"""Types of the callbacks that report the progress of long work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

__all__ = ["Progress", "ProgressCallback", "TaskProgressCallback"]

ProgressCallback = Callable[[int, int, str], None]
"""Called with (steps done, steps in total, what runs now)."""

Progress = ProgressCallback | Literal["auto"] | None
"""Argument of a function: a callback, None, or "auto" for a bar on a terminal."""

TaskProgressCallback = Callable[[str, int, int, str], None]
"""Called with (task, steps done, steps in total, what runs now), for tasks in several processes."""
