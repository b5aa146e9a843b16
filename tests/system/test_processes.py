"""Jobs in processes of their own: their order, their errors, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spikeguard.evaluation.statistics import wilson
from spikeguard.system.errors import WorkerError, is_user_error
from spikeguard.system.processes import run_in_processes


def double(number, progress):
    progress(f"job {number}", 1, 1, "done")
    return 2 * number


def refuse(number, progress):
    raise ValueError(f"job {number} is refused")


def ask_spikeguard(number, progress):
    wilson(number, 0)


def vanish(number, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def count(number, progress):
    for done in range(1, number + 1):
        progress("count", done, number, "counting")


def hang(number, progress):
    print("ready", flush=True)
    threading.Event().wait()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    told = []
    found = run_in_processes(double, [(3,), (1,), (2,)], workers, lambda *said: told.append(said))
    assert found == [6, 2, 4]
    assert {said[0] for said in told} <= {"job 1", "job 2", "job 3"}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised(workers):
    with pytest.raises(ValueError, match="is refused"):
        run_in_processes(refuse, [(1,), (2,)], workers, lambda *said: None)


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_that_is_told_is_lost(workers):
    """The jobs are long over when the last of their words is passed on."""
    told = []
    lock = threading.Event()

    def slow(*said):
        lock.wait(0.01)
        told.append(said)

    run_in_processes(count, [(30,), (40,)], workers, slow)
    assert len(told) == 70 and {said[1] for said in told} == set(range(1, 41))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_worker_that_is_killed_is_one_line():
    with pytest.raises(
        WorkerError, match=r"was killed .*finished work is kept: rerun with fewer processes"
    ):
        run_in_processes(vanish, [(1,), (2,)], 2, lambda *said: None)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_refusal_stays_one_in_another_process(workers):
    """It is known by where it was raised; a ValueError of somebody else's is a bug."""
    with pytest.raises(ValueError, match=r"^wilson: needs") as ours:
        run_in_processes(ask_spikeguard, [(1,), (2,)], workers, lambda *said: None)
    with pytest.raises(ValueError, match="is refused") as others:
        run_in_processes(refuse, [(1,), (2,)], workers, lambda *said: None)
    assert (is_user_error(ours.value), is_user_error(others.value)) == (True, False)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_no_worker_outlives_the_process_that_started_it():
    """The workers hold the pipe of the parent's output: it ends when the last of them does."""
    code = (
        "from tests.system.test_processes import hang, run_in_processes\n"
        "if __name__ == '__main__': run_in_processes(hang, [(1,), (2,)], 2, print)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert [parent.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    parent.send_signal(signal.SIGKILL)
    rest, _ = parent.communicate(timeout=60)
    assert rest == ""
