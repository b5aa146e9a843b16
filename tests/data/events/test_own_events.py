"""Recordings of one's own: npz and HDF5 files by class, and recordings in memory."""

import sys

import numpy as np
import pytest

from spikeguard.data.datasets import load
from spikeguard.data.events.event_set import EventSet, Place
from spikeguard.data.events.framing import Framing
from spikeguard.data.events.own_events import from_recordings, read_arrays
from spikeguard.data.events.recording import BadRecording, Recording
from spikeguard.data.own import own_data, read_own
from tests.toys.event_files import arrays, events, write_h5, write_npz

LISTED = events(30, size=8)


def same(recording, listed):
    found = [recording.t, recording.x, recording.y, recording.p]
    return all(np.array_equal(a, b) for a, b in zip(found, arrays(listed), strict=True))


WRITERS = {"npz": write_npz, "h5": write_h5, "hdf5": write_h5}


@pytest.mark.parametrize("form", WRITERS)
def test_a_written_file_is_read_back(tmp_path, form):
    recording = read_arrays(Place(WRITERS[form](tmp_path / f"1.{form}", LISTED)))
    assert same(recording, LISTED)
    assert recording.sensor == (8, 8)


FAULTS = {
    "x": ({"x": np.full(30, 8)}, "record 0: x 8"),
    "p": ({"p": np.full(30, 2)}, "record 0: polarity is 0"),
    "seconds": ({"t": np.linspace(0, 1, 30)}, "t is in whole microseconds, got float64"),
    "backwards": ({"t": np.arange(30)[::-1]}, "record 1: time runs backwards"),
    "lengths": ({"t": np.arange(29)}, "each event has t, x, y and p, got 29 t, 30 x"),
    "no t": ({"t": None}, "it holds no 't'; a recording has arrays t"),
    "no sensor": ({"sensor": None}, "it holds no 'sensor'; a recording has"),
    "sensor": ({"sensor": np.array([8])}, r"sensor is \(height, width\), got \[8\]"),
}


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_one_line(tmp_path, form, fault):
    changes, line = FAULTS[fault]
    path = WRITERS[form](tmp_path / f"1.{form}", LISTED, **changes)
    with pytest.raises(BadRecording, match=line) as caught:
        read_arrays(Place(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("kept", [0, 10, -200])
def test_a_cut_file_is_one_line(tmp_path, form, kept):
    path = WRITERS[form](tmp_path / f"1.{form}", LISTED)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadRecording) as caught:
        read_arrays(Place(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    path = write_h5(tmp_path / "1.h5", LISTED)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BadRecording, match=r"pip install spikeguard\[hdf5\]"):
        read_arrays(Place(path))


def write_folder(root, parts=("train", "test"), count=6):
    for part in parts:
        for label, name in enumerate(("rest", "wave")):
            for k in range(count):
                write_npz(root / part / name / f"{k}.npz", events(20, 50 * label + k, 8))
    return root


def test_a_folder_with_parts_is_loaded(tmp_path):
    data = load(write_folder(tmp_path / "gestures"), framing=Framing(T=4), val_fraction=0.25)
    assert isinstance(data.train, EventSet)
    assert (len(data.train), len(data.val), len(data.test)) == (9, 3, 12)
    assert data.train.classes == ("rest", "wave")
    assert (data.mean, data.std) == ((0.0, 0.0), (1.0, 1.0))
    assert data.test.name == "gestures/test"
    assert data.test.batch([0, 1])[0].shape == (2, 4, 2, 8, 8)
    assert data.test.labels[:4].sum() == 2  # classes are mixed


def test_a_folder_without_parts_is_divided(tmp_path):
    write_folder(tmp_path, parts=(".",), count=10)
    data = load(tmp_path, framing=Framing(T=4, polarity=1), val_fraction=0)
    assert (len(data.train), len(data.test), data.mean) == (16, 4, (0.0,))
    assert read_own(tmp_path).for_evaluation("x").test.num_classes == 2


def test_a_part_with_another_class_is_rejected(tmp_path):
    write_folder(tmp_path)
    write_npz(tmp_path / "test" / "clap" / "0.npz", LISTED)
    with pytest.raises(ValueError, match="clap is no class of the training recordings, which are"):
        load(tmp_path)


@pytest.mark.parametrize("extra", ["validation/wave", "extra/wave", "wave"])
def test_parts_beside_another_folder_are_rejected(tmp_path, extra):
    """Two folders of one part, a folder that is no part, and recordings outside every part."""
    write_folder(tmp_path, parts=("train", "val", "test"))
    write_npz(tmp_path / extra / "0.npz", LISTED)
    with pytest.raises(ValueError, match=r"holds .*train.* and also .*; move .* away"):
        read_own(tmp_path)


def test_a_recording_of_another_sensor_is_rejected_when_it_is_read(tmp_path):
    write_folder(tmp_path)
    path = write_npz(tmp_path / "test" / "wave" / "3.npz", LISTED, size=9)
    data = load(tmp_path, framing=Framing(T=2))
    with pytest.raises(
        BadRecording, match=r"its sensor has 9 x 9 pixels, that of .*test 8 x 8"
    ) as e:
        data.test.batch(slice(None))
    assert str(e.value).startswith(str(path))


def test_recordings_in_memory_are_data():
    recordings = [Recording(*arrays(events(9, k, 8)), sensor=(8, 8)) for k in range(4)]
    data = from_recordings(recordings, [0, 1, 0, 1], classes=("a", "b"), name="mine")
    assert (len(data), data.num_classes, data.shape) == (4, 2, (2, 8, 8))
    own = own_data((recordings, [0, 1, 0, 1]), "mine")
    assert own.whole.digest == data.digest
    two = own_data((recordings[:2], [0, 1]), "two")  # no two pairs (x, y)
    assert len(two.whole) == 2
    parts = own_data({"train": (recordings, [0, 1, 0, 1]), "test": data}, "mine")
    assert isinstance(parts.test, EventSet)
    with pytest.raises(ValueError, match="mine: holds no recordings"):
        from_recordings([], [], name="mine")
    other = Recording([0], [0], [0], [0], (9, 9))
    with pytest.raises(ValueError, match="its sensor has 9 x 9"):
        from_recordings([*recordings, other], [0] * 5)
