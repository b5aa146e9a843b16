"""from_arrays(): layouts, kinds of numbers, and refusals that say how to convert."""

import numpy as np
import pytest
import torch

from spikeguard.data import as_image_set, from_arrays
from spikeguard.storage.digests import content_digest

RAMP = np.arange(2 * 5 * 7 * 3, dtype="uint8").reshape(2, 5, 7, 3)  # [N, H, W, C]


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (RAMP, (3, 5, 7)),
        (RAMP.transpose(0, 3, 1, 2), (3, 5, 7)),
        (torch.from_numpy(RAMP), (3, 5, 7)),
        (RAMP[..., 0], (1, 5, 7)),
        (RAMP[..., :1], (1, 5, 7)),
        (np.zeros((2, 3, 4, 4)), (3, 4, 4)),  # channels first, where both axes could be channels
        (np.zeros((2, 4, 4, 1)), (1, 4, 4)),
        (np.zeros((2, 16, 7, 7)), (16, 7, 7)),  # many channels
        (np.zeros((2, 7, 7, 16)), (16, 7, 7)),
        (np.asfortranarray(RAMP), (3, 5, 7)),
        (RAMP[:, ::-1], (3, 5, 7)),
        (RAMP.tolist(), (3, 5, 7)),
    ],
)
def test_channels_come_first_whatever_the_layout(x, shape):
    if isinstance(x, list):
        x = np.asarray(x, dtype="uint8")
    assert from_arrays(x, [0, 1]).shape == shape


def test_pixels_are_moved_and_not_mixed():
    """Channel c at row h and column w of the result is x[n, h, w, c]."""
    found = from_arrays(RAMP, [0, 1]).images
    for n, c, h, w in [(0, 0, 0, 0), (1, 2, 4, 6), (0, 1, 3, 2)]:
        assert int(found[n, c, h, w]) == int(RAMP[n, h, w, c])


@pytest.mark.parametrize("kind", ["uint8", "float16", "float32", "float64", ">f4"])
def test_every_kind_of_number_gives_the_same_float32_batch(kind):
    pixels = np.array([0, 51, 255]).reshape(3, 1, 1, 1)
    x = pixels.astype("uint8") if kind == "uint8" else (pixels / 255).astype(kind)
    batch, _ = from_arrays(x, [0, 1, 2]).batch(slice(None))
    assert batch.dtype == torch.float32
    assert batch.flatten().tolist() == pytest.approx([0, 0.2, 1], abs=3e-4)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"])
def test_labels_of_every_integer_type(kind):
    x = np.zeros((3, 1, 2, 2))
    for y in (np.array([0, 2, 1], kind), np.array([[0], [2], [1]], kind)):
        found = from_arrays(x, y)
        assert found.labels.tolist() == [0, 2, 1] and found.labels.dtype == torch.int64
        assert torch.equal(as_image_set((x, y)).labels, found.labels)


def test_class_names_are_kept_and_count_the_classes():
    found = from_arrays(RAMP, [0, 1], classes=["cat", "dog", "fox"])
    assert (found.num_classes, found.classes) == (3, ("cat", "dog", "fox"))
    assert found.subset([1]).classes == found.classes


def test_the_digest_is_of_pixels_labels_and_peak_and_not_of_names():
    """The same as the one that ties an unfinished evaluation to its data."""
    found = from_arrays(RAMP, [0, 1])
    assert found.digest == content_digest(found.images, found.labels, b"255.0")
    assert found.digest == from_arrays(RAMP, [0, 1], name="other", classes="ab").digest
    changed = RAMP.copy()
    changed[0, 0, 0, 0] += 1
    others = [
        from_arrays(changed, [0, 1]),
        from_arrays(RAMP, [1, 0]),
        from_arrays(RAMP / 255, [0, 1]),
    ]
    assert len({found.digest, *(other.digest for other in others)}) == 4


ONES = np.ones((2, 1, 4, 4))
RAGGED = np.empty(3, dtype=object)
RAGGED[:] = [np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 5))]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (ONES * 255, [0, 1], "float pixels up to 255: divide by 255"),
        (ONES * 16, [0, 1], "float pixels up to 16: divide by 16"),
        (ONES * 2.5, [0, 1], "rescale them"),
        (ONES - 2, [0, 1], r"undo the normalisation, x \* std \+ mean"),
        (ONES * np.nan, [0, 1], "NaN; clean them"),
        (ONES.astype("uint8"), [0, 1], r"if 1 is white, write x.astype\('float32'\)"),
        (ONES.astype("int64"), [0, 1], "images are uint8 or float, got torch.int64"),
        (ONES, np.eye(2), r"of one-hot labels write y.argmax\(1\)"),
        (ONES, [0.0, 1.0], r"write y.long\(\), of an array y.astype\('int64'\)"),
        (ONES, ["cat", "dog"], r"np.unique\(y, return_inverse=True\)"),
        (ONES, [True, False], "of an integer type, got torch.bool"),
        (ONES, [0, 1, 2], "2 images but 3 labels"),
        (ONES, [-1, 0], r"x\[y >= 0\], y\[y >= 0\]"),
        (ONES[:0], [], "not empty"),
        (RAGGED, [0, 1, 2], r"entry 2 has shape \[4, 5\], entry 0 \[4, 4\]; resize all"),
        ([[[0.0]], [[0.0, 0.0]]], [0, 1], r"entry 1 has shape \[1, 2\], entry 0 \[1, 1\]"),
        (np.array([[{}]]), [0], "Python objects, not numbers"),
        (np.array([["a"]]), [0], "not numbers"),
        (np.zeros((2, 5, 6, 7)), [0, 1], "channels neither first nor last"),
        (np.zeros(2), [0, 1], r"images are \[N, C, H, W\]"),
    ],
)
def test_refusals_are_one_line_and_say_how_to_convert(x, y, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_arrays(x, y, name="mine")
    assert "mine" in str(caught.value) and "\n" not in str(caught.value)


def test_labels_beyond_the_classes_name_the_first_class():
    with pytest.raises(ValueError, match=r"got 1 .. 2; of labels that count from 1 write y - 1"):
        from_arrays(ONES, [1, 2], num_classes=2)


def test_the_callers_arrays_are_not_changed():
    x, y = RAMP.copy(), np.array([0, 1])
    batch, labels = from_arrays(x, y).batch([0, 1])
    batch.zero_(), labels.zero_()
    assert np.array_equal(x, RAMP) and y.tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["uint16", "uint32"])
def test_frames_of_any_unsigned_type_are_counts(kind):
    found = from_arrays(np.full((2, 3, 2, 4, 4), 2, kind), [0, 1])
    assert torch.equal(found.batch(slice(0, 2))[0], torch.full((2, 3, 2, 4, 4), 2.0))
