"""EventSet: batches read from disk, what is kept in memory, the digest, and skipped recordings."""

import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeguard.data.datasets import load
from spikeguard.data.events import aedat3
from spikeguard.data.events.event_set import EventSet, SkippedRecordingWarning
from spikeguard.data.events.framing import Framing
from spikeguard.data.events.gesture import read_gesture
from spikeguard.data.events.nmnist import read_bin, read_nmnist
from spikeguard.data.events.recording import BadRecording, Recording
from spikeguard.data.images import ImageSet, as_image_set
from tests.toys.event_files import aedat2, write_bin, write_gesture, write_nmnist

FRAMING = Framing(T=4, values="counts")
OPEN = Path("/proc/self/fd")


@pytest.fixture
def root(tmp_path):
    write_nmnist(tmp_path)
    return tmp_path


@pytest.fixture
def data(root):
    return replace(read_nmnist(root)[0], framing=FRAMING)


def test_a_batch_is_the_frames_of_its_recordings(data):
    x, y = data.batch([7, 0, 7])
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.shape == (3, 4, 2, 34, 34)
    assert y.tolist() == [7, 0, 7]
    for row, position in zip(x, (7, 0, 7), strict=True):
        assert np.array_equal(row, FRAMING.frames(data.recording(position)))
        assert row.sum() == len(data.recording(position)) == 40 + position
    again, _ = data.batch(torch.tensor([0]))
    assert torch.equal(again[0], x[1])
    assert torch.equal(data.batch(slice(0, 1))[0], again)
    assert len(data.batch([])[0]) == 0


def test_it_takes_the_place_of_an_image_set(data):
    assert isinstance(data, ImageSet)
    assert as_image_set(data) is data
    assert (len(data), data.num_classes, data.shape) == (20, 10, (2, 34, 34))
    with pytest.raises(AttributeError, match=r"nmnist/train: recordings stay on disk; call batch"):
        _ = data.images
    with pytest.raises(AttributeError, match="'EventSet' object has no attribute 'pixels'"):
        _ = data.pixels
    with pytest.raises(ValueError, match="an index is a slice or a list of positions"):
        data.batch(torch.tensor(3))


def test_a_subset_keeps_the_order_of_its_index(data):
    part = data.subset([5, 2])
    assert part.labels.tolist() == [5, 2]
    assert torch.equal(part.batch([1])[0], data.batch([2])[0])
    assert part.framing == data.framing
    mask = data.labels == 3
    assert len(data.subset(mask)) == 2
    assert len(data.subset(slice(5))) == 5


def test_it_can_be_sent_to_another_process(data):
    copy = pickle.loads(pickle.dumps(data))
    assert copy.digest == data.digest
    assert torch.equal(copy.batch([3])[0], data.batch([3])[0])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"labels": torch.tensor([0])}, "EventSet 'nmnist/train': 20 recordings but 1 labels"),
        ({"num_classes": 9}, "labels lie in 0 .. 8"),
        ({"classes": ("a",)}, "10 classes but 1 class names"),
        ({"framing": Framing(T=4, size=35)}, "nmnist/train: frames: size is at most the sensor's"),
        ({"places": ()}, "holds no recordings"),
    ],
)
def test_what_does_not_fit_is_rejected(data, changes, line):
    with pytest.raises(ValueError, match=line):
        replace(data, **changes)


def test_the_digest_is_of_events_labels_and_framing(root, data):
    assert data.digest == replace(data, name="other").digest
    seen = {data.digest}
    changed = [
        replace(data, framing=replace(FRAMING, T=5)),
        replace(data, framing=replace(FRAMING, values="binary")),
        replace(data, framing=replace(FRAMING, size=(17, 17))),
        replace(data, labels=data.labels.flip(0)),
        data.subset(slice(19)),
        data.subset([1, 0, *range(2, 20)]),
    ]
    seen |= {each.digest for each in changed}
    path = data.places[4].path
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # the last event is a microsecond later or earlier
    path.write_bytes(raw)
    seen.add(replace(data).digest)
    assert len(seen) == 8


def test_the_digest_does_not_depend_on_the_form_of_the_files(data):
    in_memory = replace(data, places=[data.recording(k) for k in range(20)])
    assert in_memory.digest == data.digest
    assert torch.equal(in_memory.batch([3])[0], data.batch([3])[0])


def test_the_description_names_the_framing(data):
    assert data.describe() == {
        "images": data.digest,
        "count": 20,
        "shape": [4, 2, 34, 34],
        "frames": {"T": 4, "by": "time", "values": "counts", "polarity": 2},
    }


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_events(tmp_path):
    """60 recordings of 20,000 events: no more is in memory than for 6 of them."""
    listed = [(t, t % 34, t % 33, t % 2) for t in range(20_000)]
    content = write_bin(tmp_path / "one.bin", listed).read_bytes()
    for part, count in (("Train", 60), ("Test", 1)):
        folder = tmp_path / "N-MNIST" / part / "0"
        folder.mkdir(parents=True)
        for k in range(count):
            (folder / f"{k}.bin").write_bytes(content)
    train, _ = read_nmnist(tmp_path)
    train = replace(train, framing=Framing(T=2, size=2))

    def pass_over(data):
        data.read_all()
        assert replace(data).digest
        for start in range(0, len(data), 3):
            data.batch(slice(start, start + 3))

    pass_over(train.subset(slice(6)))  # imports and caches
    few = peak_of(lambda: pass_over(train.subset(slice(6))))
    assert peak_of(lambda: pass_over(train)) < 1.1 * few
    assert peak_of(lambda: read_nmnist(tmp_path)) < len(content)


@pytest.mark.skipif(not OPEN.is_dir(), reason="no /proc")
def test_no_file_stays_open(data):
    before = len(list(OPEN.iterdir()))
    data.batch(slice(None))
    assert len(list(OPEN.iterdir())) == before


def test_only_the_recordings_of_a_batch_are_opened(data, monkeypatch):
    opened = []
    original = Path.open

    def open_(self, *given, **named):
        opened.append(self.name)
        return original(self, *given, **named)

    monkeypatch.setattr(Path, "open", open_)
    data.batch([4, 2])
    assert opened == ["00005.bin", "00003.bin"]


def test_a_trial_reads_only_its_own_packets(tmp_path, monkeypatch):
    write_gesture(tmp_path, per_packet=5)
    _, test = read_gesture(tmp_path)
    read = []
    original = aedat3._Packet.read

    def counted(self, file, path):
        read.append(self.record)
        return original(self, file, path)

    monkeypatch.setattr(aedat3._Packet, "read", counted)
    events = len(test.recording(0))  # from 1000 to 2000 us of 5200
    assert events <= 5 * len(read) <= events + 15


def break_some(root):
    bad = [root / "N-MNIST" / "Train" / "3" / "00004.bin", root / "N-MNIST/Train/5/00016.bin"]
    bad[0].write_bytes(bad[0].read_bytes()[:-1])
    bad[1].write_bytes(b"")
    return bad


def test_a_bad_recording_stops_the_batch_that_needs_it(root, data):
    bad, _ = break_some(root)
    assert len(data.batch([0, 1, 2])[0]) == 3
    with pytest.raises(BadRecording, match=f"{bad}: record 42: has 4 of 5 bytes"):
        data.batch([2, 3])
    with pytest.raises(BadRecording, match=f"{bad}: record 42"):
        _ = data.digest
    with pytest.raises(BadRecording, match=f"{bad}: record 42"):
        data.read_all()


def test_skipped_recordings_are_listed(root, data):
    bad = break_some(root)
    kept = data.readable()
    assert len(kept) == 18
    assert kept.labels.tolist() == [k % 10 for k in range(20) if k not in (3, 15)]
    assert [line.partition(": ")[0] for line in kept.skipped] == [str(path) for path in bad]
    assert kept.describe()["skipped"] == list(kept.skipped)
    assert kept.subset([0]).skipped == kept.skipped
    assert kept.readable().skipped == kept.skipped
    healthy = data.subset([0, 1, 2]).readable()
    assert (len(healthy), healthy.skipped) == (3, ())


def test_a_set_without_a_readable_recording_is_an_error(root, data):
    break_some(root)
    with pytest.raises(BadRecording, match=r"00004.bin: record 42"):
        data.subset([3, 15]).readable()


def test_load_takes_framing_and_skip_bad(root):
    framing = Framing(T=3, by="count", polarity=1, size=17)
    data = load("nmnist", root, framing=framing, test_limit=4, train_limit=15, val_fraction=0.2)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 3, 4)
    assert (data.mean, data.std, data.train.shape) == ((0.0,), (1.0,), (1, 17, 17))
    assert data.val.framing == framing
    assert data.test.batch([0])[0].shape == (1, 3, 1, 17, 17)
    assert load("nmnist", root).train.framing == Framing(T=10)
    break_some(root)
    with pytest.warns(
        SkippedRecordingWarning, match=r"nmnist/train: 2 of 20 .*; the first: .*4\.bin"
    ):
        skipping = load("nmnist", root, framing=framing, skip_bad=True)
    assert len(skipping.train) + len(skipping.val) == 18
    assert len(skipping.train.skipped) == 2
    assert skipping.test.skipped == ()


@pytest.mark.parametrize("changes", [{"framing": Framing(T=4)}, {"skip_bad": True}])
def test_images_have_no_frames(changes):
    with pytest.raises(ValueError, match=r"digits/train holds images, and .* is for event recor"):
        load("digits", **changes)


def test_a_set_of_a_file_of_another_camera_is_refused(tmp_path):
    """A CIFAR10-DVS file renamed to .bin is not read as N-MNIST."""
    path = tmp_path / "0.bin"
    path.write_bytes(aedat2([(k, 100, 90, 1) for k in range(40)]))
    with pytest.raises(BadRecording, match=r"0\.bin: record "):
        read_bin(path)


def test_frames_of_a_set_in_memory_have_their_space():
    pytest.importorskip("spikeguard.encoders.input_space", reason="no input spaces")
    events = Recording([0], [0], [0], [0], (2, 2))
    data = EventSet(torch.tensor([0]), 1, "one", places=[events], sensor=(2, 2))
    assert (data.space.high, data.space.whole, data.space.temporal) == (1.0, True, True)
    counts = replace(data, framing=FRAMING)
    assert counts.space.high == float("inf")
