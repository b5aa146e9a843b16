"""Jobs in worker processes: order of results, errors, and exit with the parent process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from spikeguard.evaluation.statistics import wilson
from spikeguard.preflight.quick import PreflightWarning
from spikeguard.system.errors import WorkerError, is_user_error
from spikeguard.system.processes import run_in_processes

pytestmark = pytest.mark.slow


def double(number, progress):
    progress(f"job {number}", 1, 1, "done")
    return 2 * number


def reject(number, progress):
    raise ValueError(f"job {number} is rejected")


def ask_spikeguard(number, progress):
    wilson(number, 0)


def caution(number, progress):
    warnings.warn(f"job {number} is slow", PreflightWarning, stacklevel=1)
    warnings.warn(f"job {number} is someone else's", UserWarning, stacklevel=1)


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
    sent = []
    found = run_in_processes(double, [(3,), (1,), (2,)], workers, lambda *args: sent.append(args))
    assert found == [6, 2, 4]
    assert {message[0] for message in sent} <= {"job 1", "job 2", "job 3"}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised(workers):
    with pytest.raises(ValueError, match="is rejected"):
        run_in_processes(reject, [(1,), (2,)], workers, lambda *said: None)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_progress_message_is_lost(workers):
    """The jobs finish long before their last message is forwarded."""
    sent = []
    lock = threading.Event()

    def slow(*message):
        lock.wait(0.01)
        sent.append(message)

    run_in_processes(count, [(30,), (40,)], workers, slow)
    assert len(sent) == 70 and {message[1] for message in sent} == set(range(1, 41))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_worker_that_is_killed_is_one_line():
    with pytest.raises(
        WorkerError, match=r"was killed .*finished work is kept: rerun with fewer processes"
    ):
        run_in_processes(vanish, [(1,), (2,)], 2, lambda *said: None)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_user_error_in_a_worker_is_still_a_user_error(workers):
    """The module that raised it decides; a ValueError raised outside SpikeGuard is a bug."""
    with pytest.raises(ValueError, match=r"^wilson: needs") as ours:
        run_in_processes(ask_spikeguard, [(1,), (2,)], workers, lambda *said: None)
    with pytest.raises(ValueError, match="is rejected") as others:
        run_in_processes(reject, [(1,), (2,)], workers, lambda *said: None)
    assert (is_user_error(ours.value), is_user_error(others.value)) == (True, False)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_no_worker_outlives_the_process_that_started_it():
    """The workers share the parent's output pipe, which closes when the last of them exits."""
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


def test_own_warnings_of_a_worker_are_one_line_without_a_place(capfd):
    run_in_processes(caution, [(1,), (2,)], 2, lambda *_: None)
    lines = capfd.readouterr().err.splitlines()
    assert sorted(line for line in lines if "slow" in line) == [
        "spikeguard: job 1 is slow",
        "spikeguard: job 2 is slow",
    ]
    assert sum("test_processes.py" in line and "someone else's" in line for line in lines) == 2


def test_a_process_of_the_caller_survives_an_error():
    mine = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
    mine.start()
    try:
        with pytest.raises(ValueError, match="is rejected"):
            run_in_processes(reject, [(0,), (1,)], 2, lambda *_: None)
        assert mine.is_alive()
    finally:
        mine.kill()
        mine.join()
