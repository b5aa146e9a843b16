"""Worker processes that decode images while the trainer computes.

A job is divided among the workers and put together in order, so their number changes no pixel. It
is a pool and not torch's DataLoader because batches are asked for by index: by the trainer, by the
slice of a rank, by an evaluation. A DataLoader needs the order of an epoch in advance and decodes a
whole batch in one process.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from spikeguard.data.photos.decoding import Job, decode
from spikeguard.system.errors import WorkerError
from spikeguard.system.processes import prepare_worker

__all__ = ["WORKERS", "Reading", "close", "finish", "start", "workers"]

WORKERS = "SPIKEGUARD_WORKERS"  # environment variable
_MOST = 16  # workers that are started without being asked for
_ALONE = 8  # images that one process decodes sooner than they are sent to others
_PIECES = 2  # jobs of a worker in each batch, because images differ in size

Reading = list["Future[NDArray[np.uint8]]"] | Job

_pool: ProcessPoolExecutor | None = None


def workers() -> int:
    """Return the number of worker processes.

    ``$SPIKEGUARD_WORKERS``; by default one for each core but one, at most 16, divided among the
    ranks of a machine. 0 in a worker process, which decodes by itself.

    Raises:
        ValueError: If the environment variable is not a whole number >= 0.
    """
    if multiprocessing.parent_process() is not None:
        return 0
    given = os.environ.get(WORKERS)
    if given is not None:
        if not given.strip().isdecimal():
            raise ValueError(
                f"{WORKERS}: the number of processes that decode images, 0 or more, got {given!r}."
            )
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    share = (cores or 1) // max(1, int(ranks) if ranks.isdecimal() else 1)
    return min(_MOST, max(0, share - 1))


def start(job: Job) -> Reading:
    """Start to decode a job in the worker processes; a small one is kept for ``finish``.

    Raises:
        WorkerError: If a worker process was killed or could not start.
    """
    count = workers()
    if count == 0 or len(job.files) <= _ALONE:
        return job
    with _whole_pool():
        return [_workers(count).submit(decode, part) for part in job.parts(_PIECES * count)]


def finish(reading: Reading) -> NDArray[np.uint8]:
    """Return the images of a started job, uint8 [B, 3, size, size].

    Raises:
        BadImage: If a file cannot be decoded; the first one of the job.
        WorkerError: If a worker process was killed or could not start.
    """
    if isinstance(reading, Job):
        return decode(reading)
    with _whole_pool():
        return np.concatenate([each.result() for each in reading])


@contextmanager
def _whole_pool() -> Iterator[None]:
    """Turn the death of a worker into one line, and let the next job start new ones."""
    try:
        yield
    except BrokenProcessPool as error:
        close()
        raise WorkerError(
            "a process that decodes images was killed (out of memory?) or could not start (a "
            f"script needs 'if __name__ == \"__main__\":'); set {WORKERS}=0 to do without them, "
            "and continue a training with --resume."
        ) from error


def close() -> None:
    """End the worker processes; the next job starts new ones."""
    global _pool
    if _pool is not None:
        _pool.shutdown(cancel_futures=True)
    _pool = None


def _workers(count: int) -> ProcessPoolExecutor:
    """Return the pool of this process, which starts its workers when they are needed."""
    global _pool
    if _pool is None:
        context = multiprocessing.get_context("spawn")
        _pool = ProcessPoolExecutor(count, context, initializer=prepare_worker)
    return _pool
