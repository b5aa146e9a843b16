"""Crew: progress arrives, a killed worker leaves the others at work, errors end all."""

import multiprocessing
import os
import signal
import time

import pytest

from spikeguard.system.crew import Crew
from spikeguard.system.errors import WorkerError

pytestmark = pytest.mark.slow


def count(n, progress):
    for k in range(1, n + 1):
        progress(f"process {os.getpid()}", k, n, "counting")


def die_or_count(folder, progress):
    try:
        os.mkdir(folder / "killed")  # noqa: PTH102 - one of the two processes is first
    except FileExistsError:
        count(3, progress)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def fail(progress):
    raise ValueError("nothing to do")


def wait_for_ever(progress):
    progress("waiting", 0, 1, "")
    while True:
        time.sleep(60)


def ends_of(crew, n):
    """Return the exit codes of the next n workers to end."""
    codes = []
    while len(codes) < n:
        codes += crew.poll(60)
    return codes


def test_all_progress_arrives_and_a_killed_worker_leaves_the_other_at_work(tmp_path):
    seen = []
    with Crew(die_or_count, (tmp_path,), lambda *news: seen.append(news)) as crew:
        crew.start()
        crew.start()
        assert crew.live == 2
        assert sorted(ends_of(crew, 2)) == [-signal.SIGKILL, 0]
        assert crew.live == 0
    assert [news[1:] for news in seen] == [(k, 3, "counting") for k in (1, 2, 3)]


def test_an_error_of_a_worker_is_raised_and_the_block_ends_the_others():
    told = pytest.raises(WorkerError, match="ValueError: nothing to do")
    with told, Crew(fail, (), print) as crew:
        crew.start()
        ends_of(crew, 1)
    assert multiprocessing.active_children() == []


def test_the_end_of_the_block_ends_workers_that_run():
    began = []
    with Crew(wait_for_ever, (), lambda *news: began.append(news)) as crew:
        crew.start()
        while not began:
            crew.poll(0.1)
    assert multiprocessing.active_children() == []


class NotForWorkers:
    """Arguments that no worker can read."""

    def __reduce__(self):
        return exit, (1,)


@pytest.mark.parametrize(("killed", "n"), [(True, 30), (False, 3)])
def test_workers_that_never_start_are_an_error(killed, n):
    arguments = () if killed else (NotForWorkers(),)
    with Crew(fail, arguments, print) as crew:
        for _ in range(n - 1):
            crew.start()
            if killed:
                crew._workers[-1].process.kill()
            ends_of(crew, 1)
        crew.start()
        if killed:
            crew._workers[-1].process.kill()
        with pytest.raises(WorkerError, match="cannot start"):
            ends_of(crew, 1)


def test_nothing_to_poll_returns_at_the_end_of_the_time():
    with Crew(count, (1,), print) as crew:
        assert crew.poll(0.01) == []
