"""SIGTERM, as a scheduler sends it before it takes a machine away: deferred to a good moment."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Termination", "termination_deferred"]

REPEAT = 10.0  # seconds in which a launcher may pass on the same request once more


class Termination:
    """A SIGTERM that was deferred.

    Attributes:
        requested: Whether the signal arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: object = None
        self._since = 0.0

    def deliver(self) -> None:
        """Handle the signal now, as it would have been handled without the deferral.

        Returns only if the handler of the surrounding program lets it go on.
        """
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            with _handled_by(self._before):
                signal.raise_signal(signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._since = True, now
        elif now - self._since >= REPEAT:
            self.deliver()


@contextmanager
def termination_deferred() -> Iterator[Termination]:
    """Keep SIGTERM from ending the block; the block looks at ``requested`` and calls ``deliver``.

    A signal that was not delivered is handled at the end of the block. A second one is handled at
    once, but within :data:`REPEAT` seconds it is the first one again: SLURM signals a launcher and
    its processes, and the launcher passes the signal on.
    Outside the main thread, and where SIGTERM is ignored, nothing is deferred.
    """
    found = Termination()
    found._before = signal.getsignal(signal.SIGTERM)
    ignored = found._before in (signal.SIG_IGN, None)
    if ignored or threading.current_thread() is not threading.main_thread():
        yield found
        return
    try:
        with _handled_by(found._note):
            yield found
    finally:
        if found.requested:
            found.deliver()


@contextmanager
def _handled_by(handler: object) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
