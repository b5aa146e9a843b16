"""Crew: single-threaded worker processes, any of which may be killed without ending the others."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Self

from spikeguard.system.errors import WorkerError, is_user_error
from spikeguard.system.processes import prepare_worker
from spikeguard.system.progress import TaskProgressCallback

__all__ = ["Crew"]

_PATIENCE = 30.0  # seconds in which a worker saves its state before it is killed

_FALSE_STARTS = 3  # processes in a row that ended by themselves before they reached their work
_KILLED_AT_START = 30  # the same for processes that were killed
_STARTED, _PROGRESS, _FAILED = "started", "progress", "failed"


@dataclass
class _Worker:
    """One process, and the connection over which it reports."""

    process: BaseProcess
    messages: Connection
    started: bool = False
    open: bool = True


class Crew:
    """Worker processes that run the same function.

    Every worker has a connection of its own: a process that is killed while it reports leaves no
    lock behind. Leaving the block terminates the workers that are left.

    Args:
        work: A module-level function, called as ``work(*arguments, progress)`` in each worker.
        arguments: Its arguments, which can be pickled.
        progress: Called with (task, done, total, what).
    """

    def __init__(
        self,
        work: Callable[..., object],
        arguments: tuple[Any, ...],
        progress: TaskProgressCallback,
    ):
        self._work, self._arguments, self._progress = work, arguments, progress
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._false_starts = 0.0  # share of those that end the work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.messages.close()
        self._workers.clear()

    @property
    def live(self) -> int:
        """Number of workers that run."""
        return len(self._workers)

    def start(self) -> None:
        """Start one more worker."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_main, args=(sender, self._work, self._arguments))
        process.start()
        sender.close()  # so that the connection ends when the worker does
        self._workers.append(_Worker(process, receiver))

    def poll(self, seconds: float) -> list[int]:
        """Forward progress for at most so many seconds, or until a worker ends.

        Returns:
            Exit codes of the workers that have ended since the last call; -9 for one that was
            killed by SIGKILL.

        Raises:
            WorkerError: If a worker reports an error, or several in a row end before they reach
                their work.
        """
        until, ended = time.monotonic() + seconds, list[_Worker]()
        while not ended and (left := until - time.monotonic()) > 0:
            channels = {w.messages: w for w in self._workers if w.open}
            for ready in wait([*channels, *(w.process.sentinel for w in self._workers)], left):
                if isinstance(ready, Connection):
                    self._receive(channels[ready])
            ended = [worker for worker in self._workers if not worker.process.is_alive()]
        for worker in ended:
            while worker.open:  # its last messages
                self._receive(worker)
            worker.process.join()
            worker.messages.close()
            self._workers.remove(worker)
            killed = (worker.process.exitcode or 0) < 0
            weight = 1 / (_KILLED_AT_START if killed else _FALSE_STARTS)
            self._false_starts = 0.0 if worker.started else self._false_starts + weight
        if self._false_starts > 1 - 1e-6:
            raise WorkerError(
                "worker processes cannot start (out of memory? a script needs "
                "'if __name__ == \"__main__\":'); finished work is kept."
            )
        return [worker.process.exitcode or 0 for worker in ended]

    def _receive(self, worker: _Worker) -> None:
        """Handle one message of a worker."""
        try:
            kind, *content = worker.messages.recv()
        except (EOFError, OSError):  # it has ended, perhaps inside a message
            worker.open = False
            return
        if kind == _STARTED:
            worker.started = True
        elif kind == _PROGRESS:
            self._progress(*content)
        elif kind == _FAILED:
            raise WorkerError(content[0])


def _main(messages: Connection, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Run a worker process."""
    prepare_worker()
    messages.send((_STARTED,))

    def report(task: str, done: int, total: int, what: str) -> None:
        messages.send((_PROGRESS, task, done, total, what))

    try:
        work(*arguments, report)
    except Exception as error:
        if not is_user_error(error) and os.environ.get("SPIKEGUARD_DEBUG"):
            traceback.print_exception(error)
        plain = str(error) if is_user_error(error) else f"{type(error).__name__}: {error}"
        messages.send((_FAILED, plain))
    messages.close()
