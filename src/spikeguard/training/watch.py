"""Watch over the ranks of a training: one that fails or dies ends all others, with its name.

Every rank has a thread that counts up in a store that all ranks share. Each thread watches the
counter of the next rank, and the process itself where both run on one host. The first failure is
kept in the store, where all threads find it. A rank whose main thread waits for a dead one, in code
that Python cannot interrupt, is ended by its own thread; a stopped one, by the thread that watches
it, if both are on one host.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from spikeguard.storage.owner import Owner

__all__ = ["LOST", "Failure", "Store", "Watch"]

LOST = 75  # exit code of a run that lost a rank: try again
SILENCE = 15.0  # seconds without a sign of life after which a rank counts as dead
_EVERY = 0.5  # seconds between two looks
_GRACE = 5.0  # seconds for the main thread to end by itself
_FAILED = "failed"


class Store(Protocol):
    """The part of ``torch.distributed.Store`` that is used."""

    def set(self, key: str, value: str) -> None:
        """Store a value."""

    def get(self, key: str) -> bytes:
        """Return a value."""

    def check(self, keys: list[str]) -> bool:
        """Whether all keys have a value."""

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """Store a value unless there is one; return the stored one."""


@dataclass(frozen=True)
class Failure:
    """Why all ranks end.

    Attributes:
        rank: The rank that failed or died.
        name: Its name.
        what: What happened to it.
        code: Exit code of all ranks.
        told: Whether the rank itself reports it, because it is rank 0 and alive.
    """

    rank: int
    name: str
    what: str
    code: int
    told: bool = False

    @property
    def text(self) -> str:
        """One line about it."""
        if self.code == LOST:
            return f"{self.name} {self.what}; all ranks end, resume the run"
        return f"{self.name}: {self.what}"

    def must_be_shown_by(self, rank: int) -> bool:
        """Whether a rank reports it, the first one that still runs."""
        return not self.told and rank == (1 if self.rank == 0 else 0)


class Watch:
    """The thread of one rank.

    Args:
        store: A connection to the common store that no other thread uses.
        rank: This rank.
        size: Number of ranks, >= 2.
        silence: Seconds without a sign of life after which a rank counts as dead.
        leave: Ends the process when the main thread does not; None is an exit without cleaning
            up, after a line on standard error.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        *,
        silence: float = SILENCE,
        leave: Callable[[Failure], None] | None = None,
    ):
        self._store, self.rank, self.size = store, rank, size
        self._silence, self._leave = silence, self._exit if leave is None else leave
        self._lock = threading.Lock()  # the main thread writes a failure to the store
        self._found, self._stopping = threading.Event(), threading.Event()
        self._failure: Failure | None = None
        self._next, self._beats = (rank + 1) % size, 0
        self._seen: tuple[bytes, float] = (b"", time.monotonic())
        store.set(f"owner/{rank}", json.dumps(Owner.this_process().to_dict()))
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch; every rank has joined."""
        self._seen = (b"", time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a failure found later is ignored."""
        self._stopping.set()
        self._thread.join(timeout=_GRACE)

    def name(self, rank: int) -> str:
        """Return the name of a rank for messages: number and host."""
        owner = self._owner(rank)
        return f"rank {rank}" + (f" on {owner.host}" if owner.host else "")

    def report(self, failure: Failure) -> Failure:
        """Tell all ranks why this one fails; return the failure that was told first."""
        with self._lock:
            said = json.dumps(asdict(failure))
            return _read(self._store.compare_set(_FAILED, "", said))

    def failure(self, within: float) -> Failure | None:
        """Return the failure that ends the run, waiting for it; None if there is none."""
        self._found.wait(within)
        return self._failure

    def wait_until_known(self, within: float) -> None:
        """Wait until all other ranks know of the failure; for the rank that hosts the store."""
        others = [f"knows/{rank}" for rank in range(self.size) if rank != self.rank]
        end = time.monotonic() + within
        while time.monotonic() < end:
            with self._lock:
                if all(self._store.check([key]) for key in others):
                    return
            time.sleep(_EVERY / 5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._lock:
                    self._failure = self._look()
            except RuntimeError as error:  # the store is gone, and with it its host
                if self._stopping.is_set():
                    return
                what = f"or the launcher on its host has ended ({_first_line(error)})"
                self._failure = Failure(0, "rank 0", what, LOST)
            if self._failure is not None:
                self._found.set()
                if not self._stopping.wait(_GRACE):
                    self._leave(self._failure)
                return
            self._stopping.wait(_EVERY)

    def _look(self) -> Failure | None:
        """Show a sign of life; return the failure that is known, or that of the next rank."""
        store, now = self._store, time.monotonic()
        self._beats += 1
        store.set(f"beat/{self.rank}", str(self._beats))
        if store.check([_FAILED]):
            store.set(f"knows/{self.rank}", "1")
            return _read(store.get(_FAILED))
        key, owner = f"beat/{self._next}", self._owner(self._next)
        beat = store.get(key) if store.check([key]) else b""
        if beat != self._seen[0]:
            self._seen = (beat, now)
        why = None
        if owner.is_here and not owner.runs():
            why = "has died"
        elif now - self._seen[1] > self._silence:
            why = f"has shown no sign of life for {self._silence:g} s"
        if why is None:
            return None
        if owner.is_here and owner.runs():  # a launcher waits for the end of a stopped process
            assert owner.pid is not None
            os.kill(owner.pid, signal.SIGKILL)
        said = Failure(self._next, self.name(self._next), why, LOST)
        return _read(store.compare_set(_FAILED, "", json.dumps(asdict(said))))

    def _exit(self, failure: Failure) -> None:
        """End the process although its main thread waits in code that cannot be interrupted."""
        if failure.must_be_shown_by(self.rank):
            print(f"spikeguard train: {failure.text}", file=sys.__stderr__, flush=True)
        os._exit(failure.code)

    def _owner(self, rank: int) -> Owner:
        key = f"owner/{rank}"
        return Owner.of(json.loads(self._store.get(key))) if self._store.check([key]) else Owner()


def _read(said: bytes) -> Failure:
    return Failure(**json.loads(said))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
