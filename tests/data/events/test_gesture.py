"""DVS128 Gesture: packets of AEDAT 3.1, trials of a label file, the lists, planted faults."""

import hashlib
import struct
from itertools import pairwise

import numpy as np
import pytest

from spikeguard.data.events.aedat3 import read_aedat3
from spikeguard.data.events.gesture import CLASSES, SENSOR, read_gesture
from spikeguard.data.events.recording import BadRecording
from tests.toys.event_files import (
    TRIALS,
    aedat31,
    arrays,
    events,
    packet,
    shared_data,
    write_gesture,
)

REAL = shared_data() / "dvs_gesture_10.npz"


def same(recording, listed):
    found = [recording.t, recording.x, recording.y, recording.p]
    return all(np.array_equal(a, b) for a, b in zip(found, arrays(listed), strict=True))


def within(listed, start, stop):
    return [event for event in listed if start <= event[0] < stop]


def write(tmp_path, *packets, **settings):
    path = tmp_path / "user01_led.aedat"
    path.write_bytes(aedat31(packets, **settings))
    return path


def test_a_written_file_is_read_back(tmp_path):
    listed = events(100, size=128)
    path = write(tmp_path, packet(listed[:60], spare=4), packet(listed[60:]))
    recording = read_aedat3(path, SENSOR)
    assert same(recording, listed)
    assert recording.sensor == (128, 128)


def test_the_lists_and_the_trials_are_read(tmp_path):
    _, written = write_gesture(tmp_path)
    train, test = read_gesture(tmp_path)
    assert (len(train), len(test)) == (6, 3)
    assert train.labels.tolist() == [0, 10, 2] * 2
    assert train.classes == CLASSES
    assert (test.name, len(CLASSES)) == ("dvs-gesture/test", 11)
    for k, (_, start, stop) in enumerate(TRIALS):
        wanted = within(written["user24_led"], start, stop)
        assert same(test.recording(k), wanted)
        assert same(train.recording(3 + k), within(written["user02_lab"], start, stop))
        assert len(wanted) > 50


@pytest.mark.parametrize("size", [1, 2, 3, 7, 499, 500])
def test_a_trial_is_the_same_however_the_packets_are_cut(tmp_path, size):
    listed = events(500, 3, 128, step=200)  # about 2 events a microsecond: many equal times
    pieces = [packet(listed[k : k + size]) for k in range(0, 500, size)]
    path = write(tmp_path, *pieces)
    for start, stop in ((0, 200), (50, 120), (0, 1), (120, 121), (199, 230)):
        assert same(read_aedat3(path, SENSOR, start, stop), within(listed, start, stop))


def test_times_beyond_31_bits_use_the_overflow_count(tmp_path):
    first, second = [(2**31 - 1, 1, 2, 0)], [(0, 3, 4, 1)]
    path = write(tmp_path, packet(first), packet(second, overflow=1))
    assert read_aedat3(path, SENSOR).t.tolist() == [2**31 - 1, 2**31]


def test_packets_of_other_types_and_events_marked_invalid_are_no_pixel_events(tmp_path):
    listed = events(9, size=128)
    imu = struct.pack("<HHIIIIII", 3, 1, 36, 4, 0, 2, 2, 2) + bytes(72)
    path = write(
        tmp_path,
        packet(listed[:5]),
        imu,
        packet([(listed[4][0], 0, 0, 1)], valid=0, first=0),
        packet(listed[5:]),
    )
    assert same(read_aedat3(path, SENSOR), listed)


def test_the_number_of_a_record_counts_the_events_of_the_file(tmp_path):
    listed = events(9, size=128, step=50)
    path = write(tmp_path, packet(listed), packet([(60, 5, 5, 1), (61, 5, 300, 1)]))
    with pytest.raises(BadRecording, match="record 10: x 5, y 300 is outside"):
        read_aedat3(path, SENSOR)
    with pytest.raises(BadRecording, match="from 60 to 70 us: record 10: x 5, y 300"):
        read_aedat3(path, SENSOR, 60, 70)
    assert same(read_aedat3(path, SENSOR, 0, 50), listed)


@pytest.mark.skipif(not REAL.is_file(), reason="no ../shared/data beside the repository")
def test_real_recordings_survive_the_format(tmp_path):
    """Ten recordings of the data set, in packets of 1,000; their SHA-256 is that of the source."""
    with np.load(REAL) as stored:
        x, y, offsets = (stored[name].astype(np.int64) for name in ("x", "y", "offsets"))
        steps = stored["dt_lo"].astype(np.int64) + 256 * stored["dt_hi"].astype(np.int64)
        p = np.unpackbits(stored["p"]).astype(np.int64)
    total = hashlib.sha256()
    for start, stop in pairwise(offsets):
        words = x[start:stop] << 17 | y[start:stop] << 2 | p[start:stop] << 1 | 1
        raw = np.stack([words, np.cumsum(steps[start:stop])], 1).astype("<u4")
        packets = [
            struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, *[len(part)] * 3) + part.tobytes()
            for part in np.split(raw, range(1000, len(raw), 1000))
        ]
        recording = read_aedat3(write(tmp_path, *packets), SENSOR)
        t = recording.t
        columns = (recording.x, recording.y, recording.p.astype(int) << 7 | t >> 16, t >> 8, t)
        total.update(np.stack(columns, 1).astype(np.uint8).tobytes())
    assert total.hexdigest() == "a24667bbd8a35b649fbcd2ac9f247d4fa2c7e83d9ed3f4ce7af75fbf74d8f66d"


A, B = (events(20, seed, 128, start=100 * seed, step=100) for seed in (1, 2))
FAULTS = {
    "cut in an event": (lambda: aedat31([packet(A), packet(B)])[:-3], "record 20: .* truncated"),
    "cut in a header": (
        lambda: aedat31([packet(A), packet(B)[:9]]),
        "record 20: the header of a packet is truncated",
    ),
    "cut between packets": (lambda: aedat31([packet(A)]), "the file ends at 1.. us; it is trunc"),
    "packets shuffled": (lambda: aedat31([packet(B), packet(A)]), "record 20: time runs backw"),
    "events shuffled": (
        lambda: aedat31([packet(A[10:] + A[:10]), packet(B)]),
        "record 10: time runs backwards",
    ),
    "no events": (lambda: aedat31([]), "holds no events"),
    "another camera": (
        lambda: aedat31([packet(A), packet([(250, 239, 179, 1)])]),
        "record 20: x 239, y 179 is outside the sensor .* another camera",
    ),
    "another version": (
        lambda: aedat31([packet(A)]).replace(b"3.1", b"2.0", 1),
        "its first line is #!AER-DAT3.1, got '#!AER-DAT2.0'",
    ),
    "an empty file": (lambda: b"", "its first line is #!AER-DAT3.1, got 'an empty file'"),
    "compressed": (lambda: aedat31([packet(A)], form="PNG"), "only the format RAW is read"),
    "wrong count": (
        lambda: aedat31([packet(A, valid=19), packet(B)]),
        "record 0: its packet says 19 valid events of 20, and marks 20",
    ),
    "noise": (lambda: aedat31([packet(A), bytes(range(64))]), "record 20: .*damaged"),
    "endless header": (lambda: b"#!AER-DAT3.1\r\n" + b"#\r\n" * 11_000, "header does not end"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_one_line_with_file_and_record(tmp_path, fault):
    path = tmp_path / "user01_led.aedat"
    path.write_bytes(aedat31([packet(A), packet(B)]))
    trial = (0, 100_300 if fault == "cut between packets" else 300)
    assert same(read_aedat3(path, SENSOR, 0, 300), A + B)  # the healthy twin
    make, line = FAULTS[fault]
    path.write_bytes(make())
    with pytest.raises(BadRecording, match=line) as caught:
        read_aedat3(path, SENSOR, *trial)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("user01_led_labels.csv", "class,start\n", "its first line is class,startTime_usec,end"),
        ("user01_led_labels.csv", "", "its first line is class"),
        ("user01_led_labels.csv", "class,startTime_usec,endTime_usec\n12,1,2\n", "line 2: class 1"),
        (
            "user01_led_labels.csv",
            "class,startTime_usec,endTime_usec\n3,9,2\n",
            "line 2: .*'3,9,2'",
        ),
        ("user01_led_labels.csv", "class,startTime_usec,endTime_usec\n3,a,2\n", "line 2"),
        ("user01_led_labels.csv", None, "cannot be read; every .aedat has its _labels.csv"),
        ("user01_led.aedat", None, "user01_led.aedat, named in .*trials_to_train.txt, not found"),
        ("trials_to_train.txt", "", "names no recording"),
        ("trials_to_train.txt", None, "trials_to_train.txt not found in .*; get DvsGesture.tar.gz"),
        ("trials_to_test.txt", None, "dvs-gesture/test: .*trials_to_test.txt not found"),
    ],
)
def test_damaged_lists_and_labels_are_one_line(tmp_path, file, content, line):
    folder, _ = write_gesture(tmp_path)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(ValueError, match=line):
        read_gesture(tmp_path)
