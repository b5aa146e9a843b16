"""``spikeguard data check`` and ``data download`` of event recordings."""

import json

import pytest

from spikeguard.cli.entry import main
from tests.toys.event_files import events, write_cifar10_dvs, write_gesture, write_nmnist, write_npz


@pytest.fixture
def root(tmp_path):
    write_nmnist(tmp_path, train=23, test=10)
    return tmp_path


def check(root, *words):
    return main(["data", "check", *words, "--data-root", str(root)])


def test_a_healthy_set_is_counted_by_class(root, capsys):
    assert check(root, "nmnist") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["data", "set", "train", "test", "shape", "state"]
    assert lines[1] == ["nmnist", "23", "10", "2", "x", "34", "x", "34", "complete"]
    assert lines[2] == ["class", "train", "test"]
    assert lines[3:] == [[str(k), "3" if k < 3 else "2", "1"] for k in range(10)]


def test_json_has_the_counts(root, capsys):
    assert check(root, "nmnist", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["data_sets"]
    assert (found["train"], found["test"], found["state"]) == (23, 10, "complete")
    assert found["classes"][2] == {"name": "2", "train": 3, "test": 1}
    assert found["skipped"] == []
    assert check(root, "digits", "--json") == 0
    (images,) = json.loads(capsys.readouterr().out)["data_sets"]
    assert set(images) == {"name", "train", "test", "shape", "state"}


def plant(root):
    path = root / "N-MNIST" / "Train" / "4" / "00005.bin"
    path.write_bytes(path.read_bytes()[:-1])
    return path


def test_a_bad_recording_is_one_line_and_code_2(root, capsys):
    path = plant(root)
    assert check(root, "nmnist") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert f"{path}: record 43: has 4 of 5 bytes; the file is truncated." in line


def test_skip_bad_lists_what_is_skipped(root, capsys):
    path = plant(root)
    assert check(root, "nmnist", "--skip-bad") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[-2:] == ["1", "skipped"]
    (skipped,) = [line for line in out.splitlines() if line.startswith("skipped:")]
    assert skipped.startswith(f"skipped: {path}: record 43")
    assert check(root, "nmnist", "--skip-bad", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["data_sets"]
    assert (found["train"], len(found["skipped"])) == (22, 1)


def test_without_a_name_the_fault_is_in_the_row(root, capsys):
    plant(root)
    assert check(root) == 0
    out = capsys.readouterr().out
    assert "the file is truncated" in " ".join(out.split())
    assert "get DvsGesture.tar.gz" in " ".join(out.split())


def test_the_other_layouts_are_checked(tmp_path, capsys):
    write_gesture(tmp_path)
    write_cifar10_dvs(tmp_path, count=2)
    write_npz(tmp_path / "mine" / "train" / "a" / "1.npz", events(9, size=8))
    write_npz(tmp_path / "mine" / "test" / "a" / "1.npz", events(9, size=8))
    for name, counts in (("dvs-gesture", "6 3"), ("cifar10-dvs", "10 10"), ("mine", "1 1")):
        assert check(tmp_path, name) == 0
        assert f"{name} {counts}" in " ".join(capsys.readouterr().out.split())


def test_a_download_says_where_to_get_it(tmp_path, capsys):
    assert main(["data", "download", "nmnist", "--data-root", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "get Train.zip and Test.zip from https://www.garrickorchard.com" in line
