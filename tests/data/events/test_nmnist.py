"""N-MNIST: records of 40 bits, the overflow record, the folders, planted faults, real files."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from spikeguard.data.events.nmnist import read_bin, read_nmnist
from spikeguard.data.events.recording import BadRecording
from tests.toys.event_files import arrays, events, shared_data, write_bin, write_nmnist

REAL = shared_data() / "nmnist_1100.npz"


def columns(recording):
    return [recording.t, recording.x, recording.y, recording.p]


def same(recording, listed):
    return all(
        np.array_equal(found, wanted)
        for found, wanted in zip(columns(recording), arrays(listed), strict=True)
    )


def test_a_written_file_is_read_back(tmp_path):
    listed = [*events(200, step=300_000), ((1 << 23) - 1, 33, 33, 1)]
    recording = read_bin(write_bin(tmp_path / "1.bin", listed))
    assert same(recording, listed)
    assert recording.sensor == (34, 34)


def test_an_overflow_record_adds_8192_us_and_is_no_event(tmp_path):
    listed = [(5, 1, 1, 0), (3, 0, 240, 0), (7, 2, 2, 1), (1, 0, 240, 1), (2, 3, 3, 1)]
    recording = read_bin(write_bin(tmp_path / "1.bin", listed))
    assert same(recording, [(5, 1, 1, 0), (7 + 8192, 2, 2, 1), (2 + 2 * 8192, 3, 3, 1)])


def test_a_fault_after_an_overflow_record_has_its_number_in_the_file(tmp_path):
    listed = [(5, 1, 1, 0), (3, 0, 240, 0), (7, 99, 2, 1)]
    with pytest.raises(BadRecording, match="record 2: x 99"):
        read_bin(write_bin(tmp_path / "1.bin", listed))


FAULTS = {
    "truncated": (lambda raw: raw[:-2], "record 39: has 3 of 5 bytes; the file is truncated"),
    "empty": (lambda raw: b"", "holds no events"),
    "overflow alone": (lambda raw: bytes([0, 240, 0, 0, 0]), "holds no events"),
    "shuffled": (lambda raw: raw[100:] + raw[:100], "record 20: time runs backwards"),
    "shifted by a byte": (lambda raw: raw[1:] + raw[:1], "record .* is outside the sensor"),
    "another camera": (lambda raw: raw[:10] + bytes([200]) + raw[11:], "record 2: x 200.* camera"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_one_line_with_file_and_record(tmp_path, fault):
    path = write_bin(tmp_path / "7.bin", events(40, step=300_000))
    assert len(read_bin(path)) == 40  # the healthy twin
    change, line = FAULTS[fault]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BadRecording, match=line) as caught:
        read_bin(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(BadRecording, match=r"1\.bin: cannot be read: No such file"):
        read_bin(tmp_path / "1.bin")


@pytest.mark.parametrize("folder", ["N-MNIST", "NMNIST", "nmnist", "."])
def test_the_folders_are_read_as_they_are(tmp_path, folder):
    write_nmnist(tmp_path).rename(tmp_path / "away")
    if folder == ".":
        root = tmp_path / "away"
    else:
        root, _ = tmp_path, (tmp_path / "away").rename(tmp_path / folder)
    train, test = read_nmnist(root)
    assert (len(train), len(test)) == (20, 10)
    assert train.labels.tolist() == [k % 10 for k in range(20)]  # the order of the numbers
    assert [place.path.stem for place in test.places] == [f"{k + 1:05d}" for k in range(10)]
    assert same(train.recording(3), events(43, seed=3))
    assert (train.name, train.num_classes, train.sensor) == ("nmnist/train", 10, (34, 34))


def test_hidden_files_are_left_out(tmp_path):
    folder = write_nmnist(tmp_path)
    (folder / "Train" / "0" / "._00001.bin").write_bytes(b"Mac OS X")
    assert len(read_nmnist(tmp_path)[0]) == 20


def test_missing_folders_say_where_to_get_the_data(tmp_path):
    with pytest.raises(ValueError, match=r"nmnist: Train not found in .*; get Train.zip .*n-mnist"):
        read_nmnist(tmp_path)
    write_nmnist(tmp_path, test=0)
    with pytest.raises(ValueError, match=r"nmnist/test: .*Test has no recordings"):
        read_nmnist(tmp_path)


@pytest.mark.skipif(not REAL.is_file(), reason="no ../shared/data beside the repository")
def test_real_recordings_survive_the_official_format(tmp_path):
    """The SHA-256 is that of the source files of the 1,100 recordings, one after another."""
    with np.load(REAL) as stored:
        x, y, offsets = stored["x"], stored["y"], stored["offsets"]
        steps = stored["dt_lo"].astype(np.int64) + 256 * stored["dt_hi"].astype(np.int64)
        p = np.unpackbits(stored["p"])
    total = hashlib.sha256()
    for k, (start, stop) in enumerate(pairwise(offsets)):
        cut = slice(start, stop)
        t = np.cumsum(steps[cut])
        raw = np.stack(
            [x[cut], y[cut], p[cut].astype(np.int64) << 7 | t >> 16, t >> 8 & 255, t & 255], 1
        )
        content = raw.astype(np.uint8).tobytes()
        total.update(content)
        path = tmp_path / f"{k % 2}.bin"
        path.write_bytes(content)
        recording = read_bin(path)
        assert np.array_equal(recording.t, t)
        assert np.array_equal(recording.x, x[cut])
        assert np.array_equal(recording.y, y[cut])
        assert np.array_equal(recording.p, p[cut])
    assert total.hexdigest() == "da89e2d157aab1e4548dcdeee54dd73ad3025c80eba14a782ee8df12bf8d2bfe"
