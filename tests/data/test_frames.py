"""Event frames in memory: their space, their batches, and what is refused in one line."""

import math

import numpy as np
import pytest
import torch

from spikeguard.data import ImageSet, Splits, as_image_set, from_arrays, from_dataset, make_splits
from spikeguard.data.datasets import load
from spikeguard.data.images import content
from spikeguard.data.own import own_data, read_own
from spikeguard.encoders.input_space import InputSpace
from spikeguard.rng import stream

BINARY = InputSpace(whole=True, temporal=True)
COUNTS = InputSpace(high=math.inf, whole=True, temporal=True)


def frames(n=12, T=3, size=4, high=1, dtype=torch.uint8):
    drawn = torch.randint(0, high + 1, (n, T, 2, size, size), generator=stream(0, "frames"))
    drawn[0].fill_(high)  # the largest value occurs
    return drawn.to(dtype)


def labels(n=12):
    return torch.arange(n) % 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32])
def test_a_batch_holds_the_stored_values(dtype):
    """Counts are not divided by 255, whatever their type."""
    x = frames(high=7, dtype=dtype)
    data = as_image_set((x, labels()))
    got, y = data.batch([3, 0])
    assert got.dtype == torch.float32 and torch.equal(got, x[[3, 0]].float())
    assert y.tolist() == [0, 0]
    assert (data.shape, data.space, data.peak) == ((2, 4, 4), COUNTS, 1.0)
    assert data.describe()["shape"] == [3, 2, 4, 4]
    assert torch.equal(data.subset([3]).batch([0])[0], got[:1])


@pytest.mark.parametrize(
    ("x", "space"),
    [
        (frames(), BINARY),
        (frames().bool(), BINARY),
        (frames(dtype=torch.float32), BINARY),
        (frames(high=3), COUNTS),
        (frames(dtype=torch.float32) / 2, InputSpace(1.0, temporal=True)),
    ],
)
def test_the_space_of_a_pair_is_the_narrowest_that_holds_it(x, space):
    assert as_image_set((x, labels())).space == space


def test_a_stated_space_is_kept_and_enforced():
    wide = InputSpace(high=5.0, whole=True, temporal=True)
    assert as_image_set((frames(), labels()), space=wide).space == wide
    assert from_arrays(frames().numpy(), labels(), space=wide).space == wide
    with pytest.raises(ValueError, match=r"inputs must be in \[0, 5\], got 0 to 7"):
        as_image_set((frames(high=7), labels()), space=wide)
    with pytest.raises(ValueError, match="one polarity per cell"):
        one = InputSpace(whole=True, temporal=True, exclusive=True)
        as_image_set((frames(), labels()), space=one)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (frames(dtype=torch.float32) - 1, "must be in [0, 1], got -1 to 0"),
        (frames(dtype=torch.float32) * 2.5, "values up to 2.5 that are not whole"),
        (frames(dtype=torch.float32).fill_(math.nan), "hold NaN"),
        (torch.zeros(12, 0, 2, 4, 4), "not empty, got shape (12, 0, 2, 4, 4)"),
    ],
)
def test_bad_frames_are_one_line(x, message):
    with pytest.raises(ValueError) as caught:
        as_image_set((x, labels()))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_images_are_no_frames_and_frames_no_images():
    with pytest.raises(ValueError, match=r"event frames are \[N, T, C, H, W\]"):
        ImageSet(torch.zeros(2, 1, 4, 4), torch.zeros(2).long(), 1, "x", space=BINARY)
    with pytest.raises(ValueError, match=r"images are \[N, C, H, W\]"):
        ImageSet(frames(2), torch.zeros(2).long(), 1, "x")
    assert ImageSet(frames(2), torch.zeros(2).long(), 1, "x", space=BINARY).shape == (2, 4, 4)


def test_the_digest_covers_the_space_of_frames():
    a = as_image_set((frames(), labels()))
    b = as_image_set((frames(), labels()), space=COUNTS)
    assert a.digest != b.digest and a.digest == as_image_set((frames(), labels())).digest
    assert len(content(a, 3)[0]) == 3 and content(a)[-1] == content(a, 3)[-1] != content(b)[-1]


def test_polarity_may_be_the_last_axis():
    x = frames(size=5)
    last = from_arrays(x.movedim(2, 4).numpy(), labels())
    assert torch.equal(last.images, x)


def test_splits_hold_one_space_and_are_not_normalised():
    train, test = as_image_set((frames(), labels())), as_image_set((frames(6), labels(6)))
    data = make_splits(train, test, val_fraction=0.25)
    assert (data.mean, data.std, data.val.space) == ((0.0, 0.0), (1.0, 1.0), BINARY)
    counts = as_image_set((frames(6, high=2), labels(6)))
    with pytest.raises(ValueError, match=r"Splits: train holds frames .* of zeros and ones, but"):
        Splits(train, None, counts, (0.0, 0.0), (1.0, 1.0))
    short = as_image_set((frames(6, T=2), labels(6)))
    with pytest.raises(ValueError, match="train has 3 frames per recording, but pair has 2"):
        Splits(train, None, short, (0.0, 0.0), (1.0, 1.0))


def test_an_npz_file_may_hold_frames(tmp_path):
    """A part without large counts has the space of the part with them."""
    file = tmp_path / "events.npz"
    parts = {"x_train": frames(30, high=3).numpy(), "y_train": labels(30).numpy()}
    np.savez(file, **parts, x_test=frames(6).numpy(), y_test=labels(6).numpy())
    data = load(file, val_fraction=0.2)
    assert data.train.space == data.test.space == data.val.space == COUNTS
    assert data.test.batch([0])[0].max() == 1
    assert read_own(file).test.shape == (2, 4, 4)


def test_objects_may_hold_frames():
    x = list(frames())
    assert from_dataset(list(zip(x, labels().tolist(), strict=True))).space == BINARY
    assert own_data((frames(), labels()), "mine").whole.space == BINARY
