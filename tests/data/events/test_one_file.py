"""Many recordings in one npz or HDF5 file: rows of each, parts, planted faults, memory."""

import tracemalloc

import numpy as np
import pytest

from spikeguard.data.datasets import load
from spikeguard.data.events.event_set import EventSet
from spikeguard.data.events.framing import Framing
from spikeguard.data.events.one_file import is_event_file, read_event_file
from spikeguard.data.events.recording import BadRecording
from tests.toys.event_files import arrays, events

LISTED = [events(10 + k, seed=k, size=8) for k in range(12)]


def columns(listed, size=8):
    """The arrays of a file: each recording starts where the one before ends."""
    ends = [0]
    for each in listed:
        ends.append(ends[-1] + len(each))
    found = dict(zip("txyp", arrays([event for each in listed for event in each]), strict=True))
    found |= {"offsets": np.array(ends), "labels": np.arange(len(listed)) % 3}
    return found | {"sensor": np.array([size, size])}


def write(path, found):
    found = {name: np.asarray(column) for name, column in found.items() if column is not None}
    if path.suffix == ".npz":
        np.savez(path, **found)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, column in found.items():
                file.create_dataset(name, data=column, **({"chunks": (8,)} if name == "t" else {}))
    return path


def same(recording, listed):
    found = [recording.t, recording.x, recording.y, recording.p]
    return all(np.array_equal(a, b) for a, b in zip(found, arrays(listed), strict=True))


@pytest.fixture(params=["data.npz", "data.h5"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_each_recording_is_read_on_its_own(path):
    write(path, columns(LISTED))
    assert is_event_file(path)
    data = read_event_file(path)[None]
    assert (len(data), data.num_classes, data.sensor) == (12, 3, (8, 8))
    assert data.labels.tolist() == [k % 3 for k in range(12)]
    assert all(same(data.recording(k), listed) for k, listed in enumerate(LISTED))


def test_small_types_and_polarities_as_bits_are_taken(path):
    found = columns(LISTED)
    small = {"t": np.uint32, "x": np.uint8, "y": np.uint8, "p": bool, "labels": np.uint8}
    write(path, found | {name: found[name].astype(dtype) for name, dtype in small.items()})
    assert same(read_event_file(path)[None].recording(5), LISTED[5])


def test_is_test_divides_the_file(path):
    write(path, columns(LISTED) | {"is_test": [k >= 9 for k in range(12)]})
    data = load(path, framing=Framing(T=2), val_fraction=0)
    assert isinstance(data.train, EventSet)
    assert (len(data.train), len(data.test)) == (9, 3)
    assert (data.train.name, data.test.name) == (f"{path.name}/train", f"{path.name}/test")
    assert same(data.train.recording(8), LISTED[8])
    assert sorted(len(data.test.recording(k)) for k in range(3)) == [19, 20, 21]


def test_a_file_of_images_is_not_one_of_events(tmp_path):
    write(tmp_path / "images.npz", {"x": np.zeros((2, 4, 4)), "y": [0, 1]})
    assert not is_event_file(tmp_path / "images.npz")
    assert not is_event_file(tmp_path / "absent.npz")
    assert not is_event_file(tmp_path)


FAULTS = {
    "a row left out": (
        {"offsets": columns(LISTED)["offsets"] - 1},
        "offsets rise from 0 to the 186",
    ),
    "the last row left out": (
        {"offsets": np.minimum(columns(LISTED)["offsets"], 185)},
        "offsets rise from 0 to the 186 events, got 0 to 185",
    ),
    "offsets shuffled": (
        {"offsets": columns(LISTED)["offsets"][[0, 2, 1, *range(3, 13)]]},
        "offsets rise",
    ),
    "fewer labels": ({"labels": np.zeros(11, int)}, "holds 11 labels, 13 offsets and 2 sides"),
    "a negative label": ({"labels": np.arange(12) - 1}, "labels lie in 0 .. 10"),
    "fewer events": ({"x": np.zeros(185, int)}, "each event has t, x, y and p, got 186 t, 185 x"),
    "no offsets": ({"offsets": None}, "holds no 'offsets'; a file of recordings has"),
    "no p": ({"p": None}, "holds no 'p'; a file"),
    "real labels": ({"labels": np.zeros(12)}, "offsets, labels and sensor are lists of whole"),
    "all to test": ({"is_test": np.ones(12, int)}, "is_test is 0 or 1 for each recording, and 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_arrays_that_do_not_fit_are_one_line(path, fault):
    changes, line = FAULTS[fault]
    write(path, columns(LISTED) | changes)
    with pytest.raises(ValueError, match=line) as caught:
        load(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


EVENTS = {
    "x": (40, 8, "record 40: x 8"),
    "p": (41, 2, "record 41: polarity is 0"),
    "t": (42, -1, "record 42: time runs backwards"),
}


@pytest.mark.parametrize("name", EVENTS)
def test_a_bad_event_is_named_by_its_row(path, name):
    row, value, line = EVENTS[name]
    found = columns(LISTED)
    found[name][row] = value
    data = read_event_file(write(path, found))[None]
    position = int(np.searchsorted(found["offsets"], row, side="right")) - 1
    with pytest.raises(BadRecording, match=line) as caught:
        data.recording(position)
    assert str(caught.value).startswith(str(path))
    assert len(data.readable()) == 11


def test_a_recording_without_events_is_named(path):
    offsets = columns(LISTED)["offsets"].copy()
    offsets[5] = offsets[4]
    data = read_event_file(write(path, columns(LISTED) | {"offsets": offsets}))[None]
    with pytest.raises(
        BadRecording, match=f"{path.name}: record {offsets[4]}: a recording holds no"
    ):
        data.recording(4)


@pytest.mark.parametrize("kept", [10, 300, -300])
def test_a_cut_file_is_one_line(path, kept):
    write(path, columns(LISTED))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError) as caught:
        load(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compressed_npz_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", **columns(LISTED))
    with pytest.raises(
        ValueError, match=r"is compressed, so no recording .*; save it with np.savez"
    ):
        load(tmp_path / "data.npz")


def test_memory_does_not_grow_with_the_file(path):
    listed = [[(t, t % 8, t % 7, t % 2) for t in range(5_000)]] * 200
    size = write(path, columns(listed)).stat().st_size
    data = read_event_file(path)[None]
    data.recording(0)  # imports
    tracemalloc.start()
    data.recording(150)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 20
