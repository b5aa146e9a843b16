"""User errors: distinguish a mistake in the input, reported by SpikeGuard, from a bug."""

from __future__ import annotations

import traceback
from collections.abc import Collection

__all__ = ["WorkerError", "is_user_error", "keep_frames", "raised_in"]

_FRAMES = "spikeguard_frames"  # attribute of an error from a worker process


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
    for module, line in reversed(getattr(error, _FRAMES, None) or _frames(error)):
        if module.partition(".")[0] in packages:
            return f"{module}, line {line}"
    return None


def keep_frames(error: BaseException) -> None:
    """Store an error's frames in it, because a traceback does not reach another process."""
    setattr(error, _FRAMES, _frames(error))


def _frames(error: BaseException) -> list[tuple[str, int]]:
    """Return module and line of every frame, the innermost last."""
    walked = traceback.walk_tb(error.__traceback__)
    return [(str(frame.f_globals.get("__name__", "")), line) for frame, line in walked]
