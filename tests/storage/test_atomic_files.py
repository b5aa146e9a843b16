"""Atomic writes: after any error there is the new file or the old one, and no temporary one."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from spikeguard.storage.atomic_files import atomic, write_bytes, write_json, write_npz, write_text

WRITERS = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "npz": lambda path: write_npz(path, new=np.arange(3)),
}


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "result"
    path.write_bytes(b"old")
    return path


def untouched(path):
    return path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_writer_replaces_the_file_and_makes_its_folder(write, old):
    write(old)
    assert old.read_bytes() != b"old"
    fresh = old.parent / "a" / "b" / "fresh"
    write(fresh)
    assert fresh.read_bytes() == old.read_bytes()
    assert list(fresh.parent.iterdir()) == [fresh]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_full_disk_leaves_the_old_file_and_names_it(write, step, old, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match=r"No space left on device.*result") as caught:
        write(old)
    assert caught.value.errno == errno.ENOSPC
    assert untouched(old)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError()]
)
def test_a_break_halfway_removes_what_was_written(error, old):
    with pytest.raises(type(error)), atomic(old) as temporary:
        temporary.write_bytes(b"half of the new")
        assert old.read_bytes() == b"old"
        raise error
    assert untouched(old)


def test_full_disk_during_the_write_itself(old, monkeypatch):
    def half(self, data):
        with self.open("wb") as handle:
            handle.write(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        write_text(old, "new")
    assert untouched(old)


def test_the_content_is_on_the_disk_before_the_name_changes(old, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_bytes(old, b"new")
    assert order == ["fsync", "replace"]


def test_no_pattern_for_results_finds_a_temporary_file(tmp_path):
    with atomic(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
        assert temporary.parent == tmp_path
        assert list(tmp_path.glob("*.json")) == []
    assert list(tmp_path.glob("*.json")) == [tmp_path / "a.json"]


def test_two_writers_of_one_file_do_not_share_a_temporary_name(tmp_path):
    with atomic(tmp_path / "a") as one, atomic(tmp_path / "a") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a").read_text() == "one"  # the outer block ends last


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.arange(2), {1, 2}])
def test_json_rejects_values_that_it_cannot_represent(value, old):
    with pytest.raises(ValueError, match=r"write_json: result: .*write None"):
        write_json(old, {"value": value})
    assert untouched(old)


def test_json_round_trip(tmp_path):
    obj = {"eps": "8/255", "π": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", obj)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == obj
    assert "π" in text
    assert text.endswith("\n")


def test_text_keeps_its_line_ends(tmp_path):
    write_text(tmp_path / "a", "é\r\n\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\r\n\n"


def test_npz_round_trip_without_pickle(tmp_path):
    write_npz(tmp_path / "a.npz", path=np.eye(2), label=["a", "bc"])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert stored["path"].tolist() == [[1, 0], [0, 1]]
        assert stored["label"].tolist() == ["a", "bc"]


def test_npz_rejects_objects(old):
    with pytest.raises(ValueError, match="'bad' holds Python objects"):
        write_npz(old, good=np.eye(2), bad=np.array([{}], dtype=object))
    assert untouched(old)
