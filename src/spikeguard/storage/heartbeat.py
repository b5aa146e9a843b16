"""A sign of life that a process gives at regular times while it works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["repeated"]


@contextmanager
def repeated(beat: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call a function in a thread of its own every so many seconds inside the block.

    Args:
        beat: The function; it handles its own errors.
        seconds: Between two calls; the first call is after this time.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            beat()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
