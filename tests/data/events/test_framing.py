"""Frames against a slow sum over the raw events, and rules that every framing keeps."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeguard.data.events.framing import Framing
from spikeguard.data.events.recording import Recording

SENSOR = (5, 7)


@st.composite
def recordings(draw):
    n = draw(st.integers(1, 40))
    t = sorted(draw(st.lists(st.integers(0, 60), min_size=n, max_size=n)))
    start = draw(st.sampled_from([0, 7, 1 << 40]))
    columns = [draw(st.lists(st.integers(0, high), min_size=n, max_size=n)) for high in (6, 4, 1)]
    return Recording(np.array(t) + start, *columns, sensor=SENSOR)


framings = st.builds(
    Framing,
    T=st.integers(1, 9),
    by=st.sampled_from(["time", "count"]),
    values=st.sampled_from(["binary", "counts"]),
    polarity=st.sampled_from([1, 2]),
    size=st.sampled_from([None, (5, 7), (2, 3), (1, 1), (3, 7)]),
    window=st.sampled_from([None, None, 1, 3, 10, 100]),
)


def slow_frames(framing, recording):
    """One event after the other, with exact fractions: which frame, which cell."""
    channels, height, width = framing.shape(recording.sensor)
    frames = np.zeros((framing.T, channels, height, width), int)
    n, t0 = len(recording), int(recording.t[0])
    length = int(recording.t[-1]) - t0 + 1
    for k in range(n):
        place = k if framing.by == "count" else int(recording.t[k]) - t0
        whole = n if framing.by == "count" else length
        step = framing.window or Fraction(whole, framing.T)
        frame = place // step
        if frame >= framing.T:
            assert framing.window
            continue
        channel = int(recording.p[k]) if channels == 2 else 0
        row = int(recording.y[k]) * height // SENSOR[0]
        column = int(recording.x[k]) * width // SENSOR[1]
        frames[int(frame), channel, row, column] += 1
    return frames if framing.values == "counts" else (frames > 0).astype(int)


@given(recordings(), framings)
@settings(max_examples=150, deadline=None)
def test_frames_are_the_sum_over_the_raw_events(recording, framing):
    found = framing.frames(recording)
    assert found.dtype == (np.int32 if framing.values == "counts" else np.uint8)
    assert np.array_equal(found, slow_frames(framing, recording))


@given(recordings(), framings)
@settings(max_examples=100, deadline=None)
def test_no_event_is_lost(recording, framing):
    counts = replace(framing, values="counts", window=None)
    frames = counts.frames(recording)
    assert frames.sum() == len(recording)
    if framing.polarity == 2:
        assert frames[:, 1].sum() == recording.p.sum()
    one = replace(counts, polarity=1).frames(recording)
    assert np.array_equal(one, frames.sum(1, keepdims=True))
    small = replace(counts, size=(1, 1)).frames(recording)
    assert np.array_equal(small, frames.sum((2, 3), keepdims=True))
    binary = replace(counts, values="binary").frames(recording)
    assert np.array_equal(binary, frames > 0)


@given(recordings(), framings, st.integers(-(1 << 40), 1 << 40))
@settings(max_examples=60, deadline=None)
def test_a_shift_of_time_changes_nothing(recording, framing, shift):
    later = Recording(recording.t + shift, recording.x, recording.y, recording.p, SENSOR)
    assert np.array_equal(framing.frames(later), framing.frames(recording))


@given(recordings(), framings, st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_equal_times_changes_no_frame_of_equal_duration(recording, framing, random):
    order = sorted(range(len(recording)), key=lambda k: (recording.t[k], random.random()))
    other = Recording(*(getattr(recording, name)[order] for name in "txyp"), sensor=SENSOR)
    framing = replace(framing, by="time")
    assert np.array_equal(framing.frames(other), framing.frames(recording))


@given(recordings(), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_frames_of_equal_count_differ_by_one_event_at_most(recording, T):
    sizes = Framing(T, by="count", values="counts").frames(recording).sum((1, 2, 3))
    assert sizes.max() - sizes.min() <= 1


@given(recordings())
@settings(max_examples=40, deadline=None)
def test_mirrored_events_give_mirrored_frames(recording):
    mirrored = Recording(recording.t, 6 - recording.x, recording.y, recording.p, SENSOR)
    framing = Framing(T=3, values="counts")
    assert np.array_equal(framing.frames(mirrored), framing.frames(recording)[..., ::-1])


def test_channel_0_is_off_and_channel_1_is_on():
    events = Recording([0, 1], [2, 3], [0, 1], [0, 1], SENSOR)
    frames = Framing(T=1).frames(events)
    assert frames[0, 0, 0, 2] == frames[0, 1, 1, 3] == 1
    assert frames.sum() == 2


def test_a_window_leaves_out_what_follows():
    events = Recording([0, 9, 10, 19, 20, 99], [0] * 6, [0] * 6, [1] * 6, SENSOR)
    by_time = Framing(T=2, values="counts", window=10).frames(events)
    assert by_time[:, 1, 0, 0].tolist() == [2, 2]
    by_count = Framing(T=4, by="count", values="counts", window=4).frames(events)
    assert by_count[:, 1, 0, 0].tolist() == [4, 2, 0, 0]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"T": 0}, "frames: T is a whole number >= 1, got 0."),
        ({"T": 2.0}, "frames: T is a whole number >= 1, got 2.0."),
        ({"T": True}, "frames: T is a whole number"),
        ({"by": "duration"}, "frames: by is time or count, got 'duration'."),
        ({"values": "float"}, "frames: values is binary or counts, got 'float'."),
        ({"polarity": 3}, "frames: polarity is 1 or 2, got 3."),
        ({"polarity": True}, "frames: polarity is 1 or 2, got True."),
        ({"size": 0}, "frames: size is a whole number >= 1, got 0."),
        ({"size": (4, 4, 4)}, "frames: size is a height and a width, or one number, got"),
        ({"size": "34"}, "frames: size is a whole number >= 1, got '34'."),
        ({"window": 0}, "frames: window is a whole number >= 1, got 0."),
    ],
)
def test_a_wrong_setting_is_rejected(changes, line):
    with pytest.raises(ValueError) as caught:
        Framing(**{"T": 4, **changes})
    assert str(caught.value).startswith(line)


def test_one_number_is_a_square_and_frames_are_not_larger_than_the_sensor():
    assert Framing(T=4, size=3).shape(SENSOR) == (2, 3, 3)
    assert Framing(T=4, size=[2, 3], polarity=1).shape(SENSOR) == (1, 2, 3)
    assert Framing(T=4).shape(SENSOR) == (2, 5, 7)
    with pytest.raises(ValueError, match="size is at most the sensor's, 5 x 7, got 6 x 6"):
        Framing(T=4, size=6).shape(SENSOR)
    assert Framing(T=4, size=3).describe() == {
        "T": 4,
        "by": "time",
        "values": "binary",
        "polarity": 2,
        "size": [3, 3],
    }
