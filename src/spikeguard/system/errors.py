"""Which errors are SpikeGuard's word to the user, and which are bugs."""

from __future__ import annotations

import traceback

__all__ = ["WorkerError", "is_user_error"]


class WorkerError(ValueError):
    """What another process refused, in its words."""


def is_user_error(error: BaseException) -> bool:
    """Whether SpikeGuard refused something: an error type of its own, or a ValueError it raised."""
    if type(error).__module__.startswith("spikeguard."):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    raised_in = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return type(error) is ValueError and raised_in.startswith("spikeguard.")
