"""The IDX reader on files written here, whole and damaged."""

import gzip

import numpy as np
import pytest
import torch

from spikeguard.data.datasets import load
from spikeguard.data.idx import read_idx, read_mnist
from tests.toys.data_files import LABELS, PIXELS, idx, write_mnist


@pytest.mark.parametrize("place", ["MNIST/raw", "mnist", ""])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_layout_gives_the_same_images(place, zipped, tmp_path):
    write_mnist(tmp_path / place, zipped=zipped)
    train, test = read_mnist(tmp_path)
    for part in (train, test):
        assert torch.equal(part.images, torch.from_numpy(PIXELS.copy())[:, None])
        assert part.labels.tolist() == [3, 0, 9, 1, 3]
        assert (part.num_classes, part.shape, part.peak) == (10, (1, 28, 28), 255.0)
    assert (train.name, test.name) == ("mnist/train", "mnist/test")


WHOLE = idx(PIXELS)
DAMAGED = {
    "empty": (b"", "got an empty file"),
    "text": (b"<html>not found</html>", r"magic 00000803\), got 3c68746d"),
    "labels": (idx(LABELS), r"magic 00000803\), got 00000801"),
    "floats": (idx(PIXELS, kind=13), "got 00000d03"),
    "header": (WHOLE[:9], "header has 16 bytes, got 9"),
    "size": (idx(PIXELS[:, :14]), r"expected shape \(N, 28, 28\) with N > 0, got \(5, 14, 28\)"),
    "none": (idx(PIXELS[:0]), "N > 0"),
    "truncated": (WHOLE[:-1], "asks for 3920 bytes, the file holds only 3919"),
    "longer": (WHOLE + b"\0", "asks for 3920 bytes, the file holds more"),
    "boast": (idx(PIXELS, shape=(4_000_000_000, 28, 28)), "holds only 3920"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged_files_are_named_with_what_was_expected_and_found(fault, zipped, tmp_path):
    data, message = DAMAGED[fault]
    path = tmp_path / ("images.gz" if zipped else "images")
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path, (28, 28))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_cut_short(tmp_path, monkeypatch):
    """A file of zeros: 300 KB claim and hold 300 MB."""
    path = tmp_path / "images.gz"
    count = 400_000
    path.write_bytes(gzip.compress(idx(np.zeros((count, 28, 28), np.uint8))))
    assert path.stat().st_size < 400_000
    with pytest.raises(ValueError, match=r"asks for 313600000 bytes.* too many for its size"):
        read_idx(path, (28, 28))
    monkeypatch.setattr("spikeguard.data.idx._RATIO", 1100)  # the healthy twin
    assert len(read_idx(path, (28, 28))) == count


ZIPPED = gzip.compress(WHOLE)
BROKEN = {
    "empty": b"",
    "plain": WHOLE,
    "truncated": ZIPPED[: len(ZIPPED) // 2],
    "checksum": ZIPPED[:-8] + bytes([ZIPPED[-8] ^ 1]) + ZIPPED[-7:],
    "garbled": ZIPPED[:10] + b"\xff" * 10 + ZIPPED[20:],  # no such kind of deflate block
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_gzip_files_are_rejected(fault, tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(BROKEN[fault])
    with pytest.raises(ValueError, match=r"images\.gz: .*(not a whole gzip|an empty file)"):
        read_idx(path, (28, 28))


def test_the_error_for_a_missing_file_names_the_folders_and_the_download(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"mnist: t10k-labels-idx1-ubyte.* not found") as caught:
        load("mnist", tmp_path)
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)
    assert "spikeguard data download mnist" in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(LABELS[:4], "5 images, but .* 4 labels"), (LABELS + 1, r"labels lie in 0 .. 9, got 10")],
)
def test_labels_that_do_not_fit_are_rejected(labels, message, tmp_path):
    write_mnist(tmp_path, labels=labels)
    with pytest.raises(ValueError, match=message):
        read_mnist(tmp_path)
