"""User errors: distinguish a mistake in the input, reported by SpikeGuard, from a bug."""

from __future__ import annotations

import traceback
from collections.abc import Collection

__all__ = ["WorkerError", "is_user_error", "raised_in"]


class WorkerError(ValueError):
    """A user error raised in a worker process, with the same message."""


def is_user_error(error: BaseException) -> bool:
    """Return whether an error is a SpikeGuard error type or a ValueError raised by SpikeGuard."""
    if type(error).__module__.startswith("spikeguard."):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    raised_in = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return type(error) is ValueError and raised_in.startswith("spikeguard.")


def raised_in(error: BaseException, packages: Collection[str]) -> str | None:
    """Return "module, line n" of the innermost frame in these top-level packages, or None."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in packages:
            return f"{module}, line {line}"
    return None
