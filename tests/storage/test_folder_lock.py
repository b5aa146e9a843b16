"""One writer at a time: planted owners, and real processes that are killed."""

import json
import os
import platform
import subprocess
import sys
import threading

import pytest

from spikeguard.storage.folder_lock import LOCK, FolderLocked, holds_nothing, locked

HOLD = """
import sys
from spikeguard.storage.folder_lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def plant(folder, **owner):
    folder.mkdir(exist_ok=True)
    started = {"pid": os.getpid(), "host": platform.node(), "started": "1"}
    (folder / LOCK).write_text(json.dumps(started | owner))


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder until its input is closed."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, **pipes)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_lock_is_removed_and_so_is_a_folder_that_stays_empty(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).is_file()
        assert holds_nothing(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_stays(tmp_path):
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").write_text("")
        assert not holds_nothing(tmp_path / "a" / "b")
    assert [each.name for each in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_one_thread_may_lock_a_folder_twice_another_may_not(tmp_path):
    found = []

    def other():
        try:
            with locked(tmp_path):
                found.append("locked")
        except FolderLocked as error:
            found.append(str(error))

    with locked(tmp_path):
        with locked(tmp_path / "." / ""):
            pass
        assert (tmp_path / LOCK).exists()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [f"{tmp_path}: another thread of this process writes to it."]
    assert not (tmp_path / LOCK).exists()


def test_a_second_process_is_refused_and_changes_nothing(holder, tmp_path):
    before = (tmp_path / "run" / LOCK).read_bytes()
    with (
        pytest.raises(FolderLocked, match=f"process {holder.pid} writes to it"),
        locked(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "run" / LOCK).read_bytes() == before
    holder.communicate("")
    with locked(tmp_path / "run"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()


def test_a_process_that_has_the_number_of_a_dead_owner_does_not_count(tmp_path):
    plant(tmp_path, pid=os.getppid(), started="1")
    with locked(tmp_path):
        pass


def test_where_there_is_no_flock_the_name_of_a_running_owner_decides(tmp_path):
    from spikeguard.storage.owner import _state

    plant(tmp_path, pid=os.getppid(), started=_state(os.getppid())[1])
    with pytest.raises(FolderLocked, match=f"process {os.getppid()} writes"), locked(tmp_path):
        pass


def test_the_lock_of_another_host_is_left_to_the_user(tmp_path):
    plant(tmp_path, host="elsewhere", pid=7)
    with (
        pytest.raises(FolderLocked, match=r"process 7 on elsewhere .* remove .*lock"),
        locked(tmp_path),
    ):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1'])
def test_a_lock_without_a_readable_owner_is_taken_over(text, tmp_path):
    (tmp_path / LOCK).write_text(text)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("if_writable", [False, True])
def test_a_folder_that_cannot_be_written(if_writable, tmp_path, monkeypatch):
    import errno

    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system", str(arguments[0]))

    monkeypatch.setattr(os, "open", refuse)
    if if_writable:
        with locked(tmp_path, if_writable=True):
            pass
    else:
        with pytest.raises(OSError, match="Read-only"), locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_processes_that_start_together_one_writes(tmp_path):
    """Each counts up a number in a file, without an atomic write; none is lost."""
    code = """
import sys
from pathlib import Path
from spikeguard.storage.folder_lock import FolderLocked, locked
folder, rounds = Path(sys.argv[1]), 0
while rounds < 20:
    try:
        with locked(folder):
            file = folder / "count"
            file.write_text(str(int(file.read_text() if file.exists() else "0") + 1))
            rounds += 1
    except FolderLocked:
        pass
"""
    words = [sys.executable, "-c", code, str(tmp_path / "run")]
    running = [subprocess.Popen(words) for _ in range(4)]
    assert [each.wait() for each in running] == [0] * 4
    assert (tmp_path / "run" / "count").read_text() == "80"
