"""The number of processes that decode, and what a killed one leaves."""

import multiprocessing
import os
import signal

import numpy as np
import pytest

from spikeguard.data.photos import reading_ahead
from spikeguard.data.photos.decoding import Job
from spikeguard.data.photos.reading_ahead import WORKERS, finish, start, workers
from spikeguard.system.errors import WorkerError
from tests.toys.photos import write_photo


def test_a_core_is_left_to_the_trainer_and_ranks_share_the_others(monkeypatch):
    monkeypatch.delenv(WORKERS, raising=False)
    for cores, ranks, wanted in (
        (1, 1, 0),
        (2, 1, 1),
        (8, 1, 7),
        (64, 1, 16),
        (16, 4, 3),
        (2, 4, 0),
    ):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False
        )
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert workers() == wanted, (cores, ranks)


@pytest.mark.parametrize("given", ["two", "-1", "1.5", ""])
def test_another_number_is_one_line(monkeypatch, given):
    monkeypatch.setenv(WORKERS, given)
    with pytest.raises(ValueError, match=f"^{WORKERS}: the number of processes") as caught:
        workers()
    assert "\n" not in str(caught.value)


def test_a_worker_decodes_by_itself(monkeypatch):
    monkeypatch.setenv(WORKERS, "3")
    assert workers() == 3
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    assert workers() == 0


@pytest.mark.slow
def test_a_killed_worker_is_one_line_and_the_next_batch_has_new_ones(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKERS, "1")
    reading_ahead.close()
    for place in range(10):
        write_photo(tmp_path / f"{place}.png", place)
    job = Job(str(tmp_path), tuple(b"%d.png" % place for place in range(10)), 8)
    wanted = finish(start(job))
    assert isinstance(start(job), list)
    assert reading_ahead._pool is not None
    (pid,) = reading_ahead._pool._processes
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="was killed") as caught:
        for _ in range(1000):
            finish(start(job))
    assert "\n" not in str(caught.value)
    assert np.array_equal(finish(start(job)), wanted)
    reading_ahead.close()
