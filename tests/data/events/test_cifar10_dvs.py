"""CIFAR10-DVS: AEDAT 2 and the matrix of dat2mat.m hold the same recording; planted faults."""

import struct

import numpy as np
import pytest

from spikeguard.data.events.cifar10_dvs import (
    CLASSES,
    read_aedat2,
    read_cifar10_dvs,
    read_dat2mat,
)
from spikeguard.data.events.recording import BadRecording
from tests.toys.event_files import aedat2, arrays, dat2mat, events, mat, write_cifar10_dvs

LISTED = events(80, size=128)


def same(recording, listed):
    found = [recording.t, recording.x, recording.y, recording.p]
    return all(np.array_equal(a, b) for a, b in zip(found, arrays(listed), strict=True))


def test_both_forms_are_read_back(tmp_path):
    (tmp_path / "0.aedat").write_bytes(aedat2(LISTED))
    (tmp_path / "0.mat").write_bytes(mat(dat2mat(LISTED)))
    for recording in (read_aedat2(tmp_path / "0.aedat"), read_dat2mat(tmp_path / "0.mat")):
        assert same(recording, LISTED)
        assert recording.sensor == (128, 128)


def test_the_first_event_of_an_address_by_hand(tmp_path):
    """Address 0: the rightmost column, row 0, ON; the lowest bit is OFF."""
    path = tmp_path / "0.aedat"
    path.write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">IIII", 0, 7, 0b0000011_0000010_1, 9))
    recording = read_aedat2(path)
    assert same(recording, [(7, 127, 0, 1), (9, 125, 3, 0)])


def test_a_first_event_that_looks_like_a_header_line_is_read(tmp_path):
    """0x23 is "#", but an address of a DVS128 starts with two zero bytes."""
    listed = [(0x23232323, 1, 0x23, 1), (0x23232324, 2, 3, 0)]
    path = tmp_path / "0.aedat"
    path.write_bytes(aedat2(listed))
    assert same(read_aedat2(path), listed)


def test_records_of_the_synchronisation_input_are_no_pixel_events(tmp_path):
    path = tmp_path / "0.aedat"
    path.write_bytes(aedat2(LISTED[:5]) + struct.pack(">II", 0x8000, LISTED[4][0]))
    assert same(read_aedat2(path), LISTED[:5])


@pytest.mark.parametrize("form", ["aedat", "mat"])
def test_the_first_ninety_percent_of_each_class_train(tmp_path, form):
    write_cifar10_dvs(tmp_path, count=10, form=form)
    train, test = read_cifar10_dvs(tmp_path)
    assert (len(train), len(test), train.classes) == (90, 10, CLASSES)
    assert train.labels.bincount().tolist() == [9] * 10
    assert test.labels.bincount().tolist() == [1] * 10
    assert same(train.recording(9 * 4 + 8), events(60, 408, 128))
    assert all(
        same(test.recording(k), events(60, 100 * y + 9, 128))
        for k, y in enumerate(test.labels.tolist())
    )


def test_files_are_in_the_order_of_their_numbers(tmp_path):
    write_cifar10_dvs(tmp_path, count=12)
    train, _ = read_cifar10_dvs(tmp_path)
    numbers = [int(place.path.stem.rpartition("_")[2]) for place in train.places[:10]]
    assert numbers == list(range(10))


def test_the_first_test_recordings_are_of_all_classes(tmp_path):
    write_cifar10_dvs(tmp_path, count=20)
    _, test = read_cifar10_dvs(tmp_path)
    assert sorted(test.labels[:10].tolist()) == list(range(10))


def test_missing_and_small_classes_are_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"cifar10-dvs: airplane not found in .*; get the ten"):
        read_cifar10_dvs(tmp_path)
    folder = write_cifar10_dvs(tmp_path, count=2)
    assert len(read_cifar10_dvs(tmp_path)[1]) == 10
    next((folder / "frog").iterdir()).unlink()
    with pytest.raises(ValueError, match="frog has 1 recordings; 90 % of each class"):
        read_cifar10_dvs(tmp_path)


def altered(k, column, value):
    rows = dat2mat(LISTED)
    rows[k][column] = value
    return mat(rows)


FAULTS = {
    "cut": ("aedat", lambda: aedat2(LISTED)[:-3], "record 79: has 5 of 8 bytes; the file is trunc"),
    "shuffled": ("aedat", lambda: aedat2(LISTED[40:] + LISTED[:40]), "record 40: time runs backw"),
    "no events": ("aedat", lambda: aedat2([]), "holds no events"),
    "empty file": ("aedat", lambda: b"", "its first line is #!AER-DAT2.0, got 'an empty file'"),
    "version 3.1": ("aedat", lambda: aedat2(LISTED, "3.1"), "is #!AER-DAT2.0, got '#!AER-DAT3.1'"),
    "another camera": (
        "aedat",
        lambda: aedat2(LISTED) + struct.pack(">II", 0x00412800, 2000),
        "record 80: address 0x00412800 is not one of a DVS128; .* another camera",
    ),
    "polarity 0": (
        "mat",
        lambda: altered(7, 5, 0),
        r"record 7: polarity is 1 \(ON\) or -1 \(OFF\)",
    ),
    "polarity 2": ("mat", lambda: altered(7, 5, 2), "record 7: polarity .* got 2"),
    "outside": ("mat", lambda: altered(9, 3, 128), "record 9: x 128"),
    "negative": ("mat", lambda: altered(9, 4, -1), "record 9: .*y -1"),
    "fraction": ("mat", lambda: altered(3, 0, 0.5), "record 3: 0.5 is not a whole number"),
    "nan": ("mat", lambda: altered(3, 3, float("nan")), "record 3: nan is not a whole number"),
    "huge": ("mat", lambda: altered(3, 0, 1e300), r"record 3: 1e\+300 is not a whole number"),
    "backwards": ("mat", lambda: altered(79, 0, 0), "record 79: time runs backwards"),
    "columns": ("mat", lambda: mat([row[:5] for row in dat2mat(LISTED)]), "out1 has 6 columns"),
    "cut mat": ("mat", lambda: mat(dat2mat(LISTED))[:-9], "damaged or truncated"),
    "other name": ("mat", lambda: mat(dat2mat(LISTED), "out2"), "has no numeric array 'out1'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_one_line_with_file_and_record(tmp_path, fault):
    form, make, line = FAULTS[fault]
    path = tmp_path / f"0.{form}"
    path.write_bytes(make())
    with pytest.raises(BadRecording, match=line) as caught:
        (read_dat2mat if form == "mat" else read_aedat2)(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
