"""Jobs in processes of their own, which tell how far they are and end with the one that began."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from typing import Any, TypeVar

from spikeguard.system.allocator import keep_freed_memory
from spikeguard.system.errors import WorkerError, is_user_error
from spikeguard.system.progress import TaskProgressCallback

__all__ = ["one_thread", "run_in_processes"]

Message = tuple[str, int, int, str]
R = TypeVar("R")

_PATIENCE = 10.0  # seconds that a word of a job that is over may take


def run_in_processes(
    work: Callable[..., R],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    progress: TaskProgressCallback,
) -> list[R]:
    """Do jobs in processes of one thread each and pass on what they tell.

    Args:
        work: A function of a module, called as ``work(*job, progress)``.
        jobs: Arguments that can be pickled; they are started in this order.
        workers: Processes, >= 1; 1 stays in this process, with one thread.
        progress: Called with (task, done, total, what).

    Returns:
        What ``work`` returned, in the order of the jobs. The first error ends all others.
    """
    if workers == 1:
        with one_thread():
            return [work(*job, progress) for job in jobs]
    context = multiprocessing.get_context("spawn")
    told: Queue[Message | None] = context.Queue()
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(told,))
    try:
        futures = [pool.submit(_in_worker, work, *job) for job in jobs]
        talking = len(jobs)  # jobs whose last word is not heard
        while not all(future.done() for future in futures) and not _failed(futures):
            talking -= _pass_on(told, progress, wait=0.2) or 0
        failed = _failed(futures)
        while failed is None and talking:  # what they told last may still be on its way
            heard = _pass_on(told, progress, wait=_PATIENCE)
            talking = talking - heard if heard is not None else 0
        return [future.result() for future in ([failed] if failed else futures)]
    except BrokenProcessPool as error:
        raise WorkerError(
            "a process of this work was ended from outside, for want of memory perhaps, or could "
            "not start (a script needs 'if __name__ == \"__main__\":'); what is done is kept: run "
            "it again, with fewer processes."
        ) from error
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()  # what a run has done is on the disk
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _pass_on(
    told: Queue[Message | None], progress: TaskProgressCallback, wait: float
) -> int | None:
    """Pass on a word of a worker; return 1 if it was a job's last, None if nobody spoke."""
    try:
        said = told.get(timeout=wait)
    except queue.Empty:
        return None
    if said is not None:
        progress(*said)
    return int(said is None)


def _failed(futures: Iterable[Future[R]]) -> Future[R] | None:
    """Return the first job that ended in an error."""
    return next((f for f in futures if f.done() and f.exception() is not None), None)


_told: Queue[Message | None] | None = None  # of a worker process: where it tells how far it is


def _start_worker(told: Queue[Message | None]) -> None:
    """Set up a worker: one thread; Ctrl-C is left to the process that started it; dies with it."""
    import torch

    global _told
    _told = told
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one: who kills it means its work too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)  # what a run has done is on the disk


def _in_worker(work: Callable[..., R], *job: Any) -> R:
    def tell(stage: str, done: int, total: int, what: str) -> None:
        assert _told is not None
        _told.put((stage, done, total, what))

    assert _told is not None
    try:
        return work(*job, tell)
    except ValueError as error:
        if type(error) is ValueError and is_user_error(error):  # told apart by where it was raised,
            raise WorkerError(str(error)) from error  # which does not come with it
        raise
    finally:
        _told.put(None)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside the block, as the workers do."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
