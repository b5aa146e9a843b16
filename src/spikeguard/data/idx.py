"""MNIST from its official IDX files, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from io import BufferedReader
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spikeguard.data.images import ImageSet
from spikeguard.data.official import is_official, warn_of_changes
from spikeguard.data.paths import not_found

__all__ = ["read_idx", "read_mnist"]

_CHUNK = 1 << 20
_FREE, _RATIO = 64 << 20, 100  # a gzip file unpacks to at most 64 MiB and 100 times its size


def read_mnist(root: Path) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test set; looks in root/MNIST/raw, root/mnist and root.

    Warns:
        ChangedFileWarning: If a file has another digest than the official one.

    Raises:
        ValueError: If a file is missing or damaged, or there are not as many labels as images.
    """
    folders = (root / "MNIST" / "raw", root / "mnist", root)
    changed: list[Path] = []
    train = _read_split(folders, "train", "mnist/train", changed)
    test = _read_split(folders, "t10k", "mnist/test", changed)
    warn_of_changes("mnist", changed)
    return train, test


def read_idx(path: Path, sample: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the uint8 array (N, ...) of an IDX file; its entries have shape ``sample``.

    The header is two zero bytes, the type (8 = unsigned byte), the number of dimensions, and each
    dimension as a big-endian 32-bit number; then the values, last dimension fastest.

    Args:
        path: The file; one that ends in ``.gz`` is decompressed.
        sample: Shape of one entry: ``(28, 28)`` for images, ``()`` for labels.

    Raises:
        ValueError: If the file is empty, truncated, too long, corrupt or of another shape, or
            would unpack to much more than its size.
    """
    return _read_idx(path, sample)[1]


def _read_idx(path: Path, sample: tuple[int, ...]) -> tuple[bytes, NDArray[np.uint8]]:
    """Return the header and the array of an IDX file."""
    dimensions = 1 + len(sample)
    magic = bytes([0, 0, 8, dimensions])
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = _read(file, 4 + 4 * dimensions)
            if header[:4] != magic:
                raise ValueError(
                    f"{path}: expected an IDX file of bytes in {dimensions} dimension(s) (magic "
                    f"{magic.hex()}), got {header[:4].hex() or 'an empty file'}."
                )
            if len(header) < 4 + 4 * dimensions:
                raise ValueError(
                    f"{path}: the header has {4 + 4 * dimensions} bytes, got {len(header)}; the "
                    "file is truncated, fetch it again."
                )
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
            if shape[1:] != sample or shape[0] == 0:
                wanted = ", ".join(["N", *map(str, sample)])
                raise ValueError(f"{path}: expected shape ({wanted}) with N > 0, got {shape}.")
            size = math.prod(shape)
            limit = size
            if path.suffix == ".gz":
                limit = min(size, _FREE + _RATIO * path.stat().st_size)
            values = _read(file, limit + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); fetch it again.") from error
    if len(values) != size:
        found = f"only {len(values)}" if len(values) < size else "more"
        found = f"more than {limit}, too many for its size" if limit < len(values) < size else found
        raise ValueError(
            f"{path}: the header {shape} asks for {size} bytes, the file holds {found}; "
            "fetch it again."
        )
    return bytes(header), np.frombuffer(values, np.uint8).reshape(shape)


def _read_split(folders: tuple[Path, ...], part: str, name: str, changed: list[Path]) -> ImageSet:
    """Read the images and labels of one part; add the files that are not official to a list."""
    images_path = _find(folders, f"{part}-images-idx3-ubyte")
    labels_path = _find(folders, f"{part}-labels-idx1-ubyte")
    images = _checked(images_path, (28, 28), changed)
    labels = _checked(labels_path, (), changed)
    if len(images) != len(labels):
        raise ValueError(
            f"{images_path} holds {len(images)} images, but {labels_path.name} {len(labels)} "
            "labels; fetch both again."
        )
    if labels.max() > 9:
        raise ValueError(f"{labels_path}: labels lie in 0 .. 9, got {labels.max()}.")
    pixels = torch.from_numpy(images)[:, None]
    return ImageSet(pixels, torch.from_numpy(labels).long(), 10, name)


def _checked(path: Path, sample: tuple[int, ...], changed: list[Path]) -> NDArray[np.uint8]:
    """Read a file, and add it to a list if it is not the official one."""
    header, values = _read_idx(path, sample)
    if not is_official("mnist", path.name.removesuffix(".gz"), header + values.tobytes()):
        changed.append(path)
    return values


def _find(folders: tuple[Path, ...], file: str) -> Path:
    for folder in folders:
        for path in (folder / file, folder / f"{file}.gz"):
            if path.is_file():
                return path
    raise not_found("mnist", f"{file}[.gz]", folders)


def _read(file: gzip.GzipFile | BufferedReader, limit: int) -> bytearray:
    """Read at most ``limit`` bytes in pieces, so that a wrong header allocates no memory."""
    data = bytearray()
    while len(data) < limit and (piece := file.read(min(_CHUNK, limit - len(data)))):
        data += piece
    return data
