"""Locks of the shared files: one at a time, released by a kill; half a line is cut off."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spikeguard.sweeps import file_locks
from spikeguard.sweeps.file_locks import exclusive, has_locks, journal_backend

HOLDER = """
import sys
from pathlib import Path
from spikeguard.sweeps.file_locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(file):
    source = str(Path(__file__).parents[2] / "src")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert process.stdout.readline() == b"held\n"
    return process


def is_free(file):
    descriptor = os.open(file, os.O_RDWR)
    try:
        file_locks.fcntl.flock(descriptor, file_locks.fcntl.LOCK_EX | file_locks.fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_a_lock_is_held_until_its_process_is_killed(tmp_path):
    file = tmp_path / "lock"
    process = holder(file)
    assert not is_free(file)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert is_free(file)
    with exclusive(file):
        assert not is_free(file)
    assert is_free(file)


def test_half_a_line_of_a_killed_worker_is_cut_off(tmp_path):
    file = tmp_path / "study.log"
    journal = journal_backend(file)
    journal.append_logs([{"a": 1}, {"b": 2}])
    with file.open("ab") as handle:
        handle.write(b'{"c": ')
    assert list(journal.read_logs(0)) == [{"a": 1}, {"b": 2}]
    journal.append_logs([{"d": 4}])
    assert list(journal.read_logs(2)) == [{"d": 4}]
    assert list(journal_backend(file).read_logs(0)) == [{"a": 1}, {"b": 2}, {"d": 4}]


def test_the_first_line_may_be_cut_off_too(tmp_path):
    file = tmp_path / "study.log"
    file.write_bytes(b'{"c": ')
    journal_backend(file).append_logs([{"a": 1}])
    assert file.read_bytes() == b'{"a":1}\n'


def test_without_locks_of_the_kernel_optunas_own_are_used(tmp_path, monkeypatch):
    from optuna.storages.journal import JournalFileSymlinkLock

    def no_locks(descriptor, how):
        raise OSError(file_locks.errno.ENOLCK, "no locks")

    assert has_locks(tmp_path)
    monkeypatch.setattr(file_locks.fcntl, "flock", no_locks)
    assert not has_locks(tmp_path)
    assert isinstance(journal_backend(tmp_path / "study.log")._lock, JournalFileSymlinkLock)
    with exclusive(tmp_path / "lock"):
        pass


def test_another_error_is_raised(tmp_path, monkeypatch):
    def broken(descriptor, how):
        raise OSError(file_locks.errno.EIO, "broken")

    monkeypatch.setattr(file_locks.fcntl, "flock", broken)
    with pytest.raises(OSError, match="broken"), exclusive(tmp_path / "lock"):
        pass
