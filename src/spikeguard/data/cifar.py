"""CIFAR-10 and CIFAR-100 from their official files, binary or python version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeguard.data.images import ImageSet
from spikeguard.data.official import is_official, warn_of_changes
from spikeguard.data.paths import not_found
from spikeguard.data.pickles import read_pickle

__all__ = ["CIFAR10", "CIFAR100", "Release", "read_binary", "read_cifar", "read_python"]

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Release:
    """File names and contents of one CIFAR release.

    Args:
        name: Name in the registry of data sets.
        num_classes: Number of (fine) classes.
        binary: Folder of the binary version; its files end in ``.bin``.
        python: Folder of the python version; its files have no extension.
        train: Training files in order, without extension.
        test: Test file, without extension.
        train_rows: Images in each training file.
        test_rows: Images in the test file.
        labels: Bytes before the pixels of a binary row; the last one is the class.
        key: Key of the class numbers in the python version.
    """

    name: str
    num_classes: int
    binary: str
    python: str
    train: tuple[str, ...]
    test: str
    train_rows: int
    test_rows: int
    labels: int
    key: bytes

    @property
    def sizes(self) -> dict[str, int]:
        """Name and size in bytes of every file of the binary version."""
        row = self.labels + _PIXELS
        train = {f"{file}.bin": self.train_rows * row for file in self.train}
        return train | {f"{self.test}.bin": self.test_rows * row}


CIFAR10 = Release(
    name="cifar10",
    num_classes=10,
    binary="cifar-10-batches-bin",
    python="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    train_rows=10_000,
    test_rows=10_000,
    labels=1,
    key=b"labels",
)
CIFAR100 = Release(
    name="cifar100",
    num_classes=100,
    binary="cifar-100-binary",
    python="cifar-100-python",
    train=("train",),
    test="test",
    train_rows=50_000,
    test_rows=10_000,
    labels=2,
    key=b"fine_labels",
)


def read_cifar(release: Release, root: Path) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test set; the binary version is preferred.

    Looks for the official folder in ``root`` and in ``root/<name>``, and uses ``root`` itself
    if it is that folder.

    Warns:
        ChangedFileWarning: If a file has another digest than the official one.

    Raises:
        ValueError: If a file is missing, of the wrong size, or holds labels out of range.
    """
    folder, ending = _locate(release, root)
    changed: list[Path] = []

    def read(files: Sequence[str], rows: int, part: str) -> ImageSet:
        parts = []
        for file in files:
            path = folder / f"{file}{ending}"
            if not path.is_file():
                raise not_found(release.name, path.name, [folder])
            if ending:
                images, labels = read_binary(path, release.labels, rows)
            else:
                images, labels = read_python(path, release.key, rows)
            _check_labels(path, labels, release.num_classes)
            if not is_official(release.name, path.name, path):
                changed.append(path)
            parts.append((images, labels))
        images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return ImageSet(images, labels, release.num_classes, f"{release.name}/{part}")

    train = read(release.train, release.train_rows, "train")
    test = read([release.test], release.test_rows, "test")
    warn_of_changes(release.name, changed)
    return train, test


def read_binary(path: Path, labels: int, rows: int) -> tuple[Tensor, Tensor]:
    """Return images uint8 [rows, 3, 32, 32] and labels int64 [rows] of a binary file.

    A row is ``labels`` label bytes, the last of which is the class, and 3072 pixel bytes: the red,
    the green and the blue plane.

    Raises:
        ValueError: If the file does not have exactly ``rows`` rows.
    """
    width = labels + _PIXELS
    found = path.stat().st_size
    if found != rows * width:
        raise ValueError(
            f"{path}: expected {rows} rows of {width} bytes = {rows * width} bytes, got {found}; "
            f"the file is {'truncated' if found < rows * width else 'too long'}, fetch it again."
        )
    table = np.fromfile(path, np.uint8).reshape(rows, width)
    return _images(table[:, labels:]), torch.from_numpy(table[:, labels - 1].astype(np.int64))


def read_python(path: Path, key: bytes, rows: int) -> tuple[Tensor, Tensor]:
    """Return images uint8 [rows, 3, 32, 32] and labels int64 [rows] of a pickled file.

    The pickle is read by :func:`spikeguard.data.pickles.read_pickle`, which runs no code from it.

    Raises:
        ValueError: If the pickle is rejected or damaged, or does not hold ``rows`` rows.
    """
    content = read_pickle(path)
    data, labels = content.get(b"data"), content.get(key)
    if not isinstance(data, np.ndarray) or data.shape != (rows, _PIXELS):
        found = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{path}: expected data of shape {(rows, _PIXELS)}, got {found}.")
    if not isinstance(labels, list) or len(labels) != rows:
        found = len(labels) if isinstance(labels, list) else type(labels).__name__
        raise ValueError(f"{path}: expected a list of {rows} under {key!r}, got {found}.")
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise ValueError(f"{path}: {key!r} holds something else than class numbers.")
    return _images(data), torch.tensor(labels, dtype=torch.int64)


def _locate(release: Release, root: Path) -> tuple[Path, str]:
    """Return the folder that holds any file of the release, and the extension of its files."""
    files = (*release.train, release.test)
    looked_in = []
    for name, ending in ((release.binary, ".bin"), (release.python, "")):
        folders = [root / name, root / release.name / name]
        for folder in [*folders, root] if root.name == name else folders:
            if any((folder / f"{file}{ending}").is_file() for file in files):
                return folder, ending
            looked_in.append(folder)
    raise not_found(release.name, f"{release.train[0]}.bin", looked_in)


def _images(rows: NDArray[np.uint8]) -> Tensor:
    """Copy rows of 3072 bytes to images [N, 3, 32, 32]."""
    return torch.from_numpy(rows.copy()).view(-1, 3, 32, 32)


def _check_labels(path: Path, labels: Tensor, num_classes: int) -> None:
    if int(labels.max()) >= num_classes:
        row = int((labels >= num_classes).nonzero()[0])
        raise ValueError(
            f"{path}: row {row} has label {int(labels[row])}, labels lie in 0 .. "
            f"{num_classes - 1}; the file is corrupt or belongs to another data set."
        )
