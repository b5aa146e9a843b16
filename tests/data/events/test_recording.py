"""Recording: what is kept, and one line about the first event that cannot be right."""

import numpy as np
import pytest

from spikeguard.data.events.recording import BadRecording, Recording

GOOD = {"t": [0, 5, 5, 9], "x": [0, 3, 3, 1], "y": [1, 0, 1, 1], "p": [1, 0, 0, 1]}


def recording(sensor=(2, 4), **changes):
    return Recording(**{**GOOD, **changes}, sensor=sensor, where="a.bin")


def test_a_recording_keeps_its_events_in_small_types():
    events = recording()
    assert [each.dtype for each in (events.t, events.x, events.y, events.p)] == [
        np.int64,
        np.uint16,
        np.uint16,
        np.uint8,
    ]
    assert (len(events), events.duration, events.sensor) == (4, 9, (2, 4))
    assert events.x.tolist() == GOOD["x"]
    assert recording(p=np.array([True, False, False, True])).p.tolist() == GOOD["p"]
    assert recording(t=np.array(GOOD["t"], np.uint32)).t.tolist() == GOOD["t"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"x": [0, 3, 4, 1]}, "a.bin: record 2: x 4, y 1 is outside the sensor (x in 0 .. 3, y"),
        ({"y": [1, 0, 1, 2]}, "a.bin: record 3: x 1, y 2 is outside"),
        ({"x": [0, -1, 3, 1]}, "a.bin: record 1: x -1, y 0 is outside"),
        ({"p": [1, 0, 2, 1]}, "a.bin: record 2: polarity is 0 (OFF) or 1 (ON), got 2"),
        ({"p": [1, -1, 0, 1]}, "a.bin: record 1: polarity is 0 (OFF) or 1 (ON), got -1"),
        ({"t": [0, 5, 4, 9]}, "a.bin: record 2: time runs backwards, 4 us after 5 us"),
        ({"t": np.array([0, 5, 4, 9], np.uint32)}, "a.bin: record 2: time runs backwards"),
        ({"t": [0, 5, 5]}, "a.bin: each event has t, x, y and p, got 3 t, 4 x, 4 y, 4 p"),
        ({"t": [0.0, 0.5, 0.5, 1]}, "a.bin: t is in whole microseconds, got float64; of seconds"),
        ({"x": [0.0, 0.5, 0.5, 1]}, "a.bin: x is in whole numbers, got float64"),
        ({"t": [[0, 5, 5, 9]]}, "a.bin: t is one number an event [N], got [1, 4]"),
        ({name: [] for name in "txyp"}, "a.bin: holds no events."),
        ({"sensor": (0, 4)}, "a.bin: the sensor has 0 x 4 pixels"),
    ],
)
def test_a_planted_fault_is_named_with_file_and_record(changes, line):
    with pytest.raises(BadRecording) as caught:
        recording(**changes)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_the_record_is_the_one_in_the_file():
    with pytest.raises(BadRecording, match="record 12: x 9"):
        Recording([0, 1], [0, 9], [0, 0], [0, 0], (2, 4), records=np.array([10, 12]))
