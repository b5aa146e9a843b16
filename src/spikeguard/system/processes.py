"""Run jobs in worker processes that report progress and exit when the parent process does."""

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
from spikeguard.system.errors import WorkerError, is_user_error, keep_frames
from spikeguard.system.progress import TaskProgressCallback
from spikeguard.system.warning_lines import show_in_one_line

__all__ = ["one_thread", "prepare_worker", "run_in_processes"]

Message = tuple[str, int, int, str]
R = TypeVar("R")

_PATIENCE = 10.0  # seconds to wait for the last message of a finished job


def run_in_processes(
    work: Callable[..., R],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    progress: TaskProgressCallback,
) -> list[R]:
    """Run jobs in single-threaded worker processes and forward their progress.

    Args:
        work: A module-level function, called as ``work(*job, progress)``.
        jobs: Arguments that can be pickled; the jobs start in this order.
        workers: Number of processes, >= 1; 1 runs the jobs in this process, with one thread.
        progress: Called with (task, done, total, what).

    Returns:
        The results of ``work``, in the order of the jobs.

    Raises:
        WorkerError: If a job reports a user error, or a worker process is killed.
        Exception: Any other error of a job. The first error stops all other jobs.
    """
    if workers == 1:
        with one_thread():
            return [work(*job, progress) for job in jobs]
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())  # of the caller
    messages: Queue[Message | None] = context.Queue()
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(messages,))
    try:
        futures = [pool.submit(_in_worker, work, *job) for job in jobs]
        open_jobs = len(jobs)  # jobs whose final message has not arrived
        while not all(future.done() for future in futures) and not _failed(futures):
            open_jobs -= _forward(messages, progress, wait=0.2) or 0
        failed = _failed(futures)
        while failed is None and open_jobs:  # their last messages may still be in the queue
            closed = _forward(messages, progress, wait=_PATIENCE)
            open_jobs = open_jobs - closed if closed is not None else 0
        return [future.result() for future in ([failed] if failed else futures)]
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process was killed (out of memory?) or could not start (a script needs "
            "'if __name__ == \"__main__\":'); finished work is kept: rerun with fewer processes."
        ) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()  # finished work is on disk
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _forward(
    messages: Queue[Message | None], progress: TaskProgressCallback, wait: float
) -> int | None:
    """Forward one message to ``progress``; return 1 if it was a job's last, None if none came."""
    try:
        message = messages.get(timeout=wait)
    except queue.Empty:
        return None
    if message is not None:
        progress(*message)
    return int(message is None)


def _failed(futures: Iterable[Future[R]]) -> Future[R] | None:
    """Return the first job that failed."""
    return next((f for f in futures if f.done() and f.exception() is not None), None)


_messages: Queue[Message | None] | None = None  # in a worker process: its progress messages


def _start_worker(messages: Queue[Message | None]) -> None:
    """Set up a worker of a pool."""
    global _messages
    _messages = messages
    prepare_worker()


def prepare_worker() -> None:
    """Set up a worker process: one thread, Ctrl-C ignored, exit when the parent process dies."""
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    show_in_one_line("spikeguard")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit when the parent process dies."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)  # finished work is on disk


def _in_worker(work: Callable[..., R], *job: Any) -> R:
    """Run one job in a worker; its last message is None."""

    def report(stage: str, done: int, total: int, what: str) -> None:
        assert _messages is not None
        _messages.put((stage, done, total, what))

    assert _messages is not None
    try:
        return work(*job, report)
    except Exception as error:
        # A user error is recognised by its traceback, which the parent process does not receive.
        if type(error) is ValueError and is_user_error(error):
            raise WorkerError(str(error)) from error
        keep_frames(error)
        raise
    finally:
        _messages.put(None)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread inside the block, as in the workers."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
