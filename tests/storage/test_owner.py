"""Owners: a process runs, has ended, was replaced by another of its number, or is a zombie."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from spikeguard.storage.owner import Owner

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def owner_of(process):
    here = Owner.this_process()
    started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    return Owner(process.pid, here.host, started)


def test_this_process_runs_here_and_survives_json():
    here = Owner.this_process()
    assert here.is_here and here.runs() and here.pid == os.getpid()
    assert Owner.of(here.to_dict()) == here


def test_a_process_that_was_killed_does_not_run_even_before_its_parent_looks():
    process = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)
    owner = owner_of(process)
    assert owner.runs()
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert not owner.runs()
    process.communicate()
    assert not owner.runs()


def test_another_process_of_the_same_number_is_not_the_owner():
    here = Owner.this_process()
    assert not Owner(here.pid, here.host, "1").runs()


def test_words_of_another_kind_are_no_owner():
    assert Owner.of(["pid"]) == Owner() and not Owner().runs() and not Owner(pid="7").runs()
