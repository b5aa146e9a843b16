"""Members of a folder: equal settings are admitted, others and locks refused, the dead removed."""

import json
import os
import platform

import pytest

from spikeguard.storage.claims import SILENT
from spikeguard.storage.folder_lock import LOCK, FolderLocked, holds_nothing, joined, locked
from spikeguard.storage.members import RANKS
from spikeguard.storage.owner import Owner, _state

SETTINGS = {"--suite": "['snn']", "code version": "1"}


def plant(folder, settings=SETTINGS, *, pid=None, host=None, silent=0.0):
    """Leave the file of another member, by default of a process that runs; return it."""
    (folder / RANKS).mkdir(parents=True, exist_ok=True)
    pid = os.getppid() if pid is None else pid
    file = folder / RANKS / f"{host or platform.node()}-{pid}.member"
    owner = Owner(pid, host or platform.node(), _state(pid)[1])
    card = {**owner.to_dict(), "rank": "rank 0 of 2", "settings": settings}
    file.write_text(json.dumps(card))
    now = file.stat().st_mtime
    os.utime(file, (now - silent, now - silent))
    return file


def test_the_first_member_is_alone_the_next_one_is_not(tmp_path):
    with joined(tmp_path / "run", "rank 1 of 2", SETTINGS) as first:
        assert first and holds_nothing(tmp_path / "run")
        with locked(tmp_path / "run"):  # admitted: a member may write
            pass
    assert list(tmp_path.iterdir()) == []
    other = plant(tmp_path)
    with joined(tmp_path, "rank 1 of 2", SETTINGS) as first:
        assert not first and len(list((tmp_path / RANKS).iterdir())) == 2
    assert list((tmp_path / RANKS).iterdir()) == [other]


@pytest.mark.parametrize(
    ("mine", "named"),
    [
        ({**SETTINGS, "--limit": "7"}, "--limit (none there, 7 here)"),
        ({**SETTINGS, "code version": "2"}, "code version (1 there, 2 here)"),
        ({"code version": "1"}, "--suite (['snn'] there, none here)"),
    ],
)
def test_other_settings_are_named_and_refused(mine, named, tmp_path):
    other = plant(tmp_path)
    with pytest.raises(FolderLocked) as error, joined(tmp_path, "rank 1 of 2", mine):
        pass
    assert named in str(error.value) and f"process {os.getppid()} (rank 0 of 2)" in str(error.value)
    assert "\n" not in str(error.value)
    assert list((tmp_path / RANKS).iterdir()) == [other]


def test_a_lock_is_refused_while_a_member_runs_and_granted_after(tmp_path):
    other = plant(tmp_path)
    with pytest.raises(FolderLocked, match=f"process {os.getppid()} .rank 0 of 2. writes to it"):
        locked(tmp_path).__enter__()
    assert not (tmp_path / LOCK).exists()
    other.unlink()
    with locked(tmp_path):
        pass


def test_a_member_is_refused_while_another_process_holds_the_lock(tmp_path):
    owner = Owner(os.getppid(), platform.node(), _state(os.getppid())[1])
    (tmp_path / LOCK).write_text(json.dumps(owner.to_dict()))
    with (
        pytest.raises(FolderLocked, match=f"process {os.getppid()} writes to it"),
        joined(tmp_path, "rank 1 of 2", SETTINGS),
    ):
        pass
    assert [each.name for each in tmp_path.iterdir()] == [LOCK]


@pytest.mark.parametrize(
    "dead",
    [{"pid": 2**22 + 1}, {"host": "elsewhere", "silent": SILENT + 60}],
    ids=["its process ended", "silent on another host"],
)
def test_a_dead_member_with_other_settings_is_removed(dead, tmp_path):
    other = plant(tmp_path, {"--suite": "other"}, **dead)
    with joined(tmp_path, "rank 1 of 2", SETTINGS) as first:
        assert first and not other.exists()


def test_a_member_on_another_host_that_is_not_silent_counts(tmp_path):
    plant(tmp_path, {"--suite": "other"}, pid=7, host="elsewhere", silent=SILENT - 60)
    with (
        pytest.raises(FolderLocked, match="process 7 on elsewhere"),
        joined(tmp_path, "", SETTINGS),
    ):
        pass
