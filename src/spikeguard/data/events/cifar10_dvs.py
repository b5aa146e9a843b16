"""CIFAR10-DVS from its official ``.aedat`` files (version 2) or from ``.mat`` files made of them.

Source: Li, Liu, Ji, Li and Shi, "CIFAR10-DVS: an event-stream dataset for object classification",
Frontiers in Neuroscience 11:309, 2017, whose readme names the script ``dat2mat.m`` as the reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spikeguard.data.events.aedat import skip_header
from spikeguard.data.events.event_set import EventSet, Place
from spikeguard.data.events.files import files_of, first_folder, opened
from spikeguard.data.events.mat_files import read_mat
from spikeguard.data.events.recording import BadRecording, Recording
from spikeguard.data.stratified import mixed_order

__all__ = ["CLASSES", "read_aedat2", "read_cifar10_dvs", "read_dat2mat"]

SENSOR = (128, 128)
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
_FOLDERS = ("CIFAR10-DVS", "CIFAR10DVS", "cifar10-dvs", ".")
_TRAIN = 0.9  # of each class, as papers divide it; the data set itself has no division
_RECORD = np.dtype([("address", ">u4"), ("time", ">u4")])
_SPECIAL = 0x8000  # a record of the synchronisation input, not of a pixel
_COLUMNS = 6  # of dat2mat.m: time, two unused, x, y, polarity


def read_cifar10_dvs(root: Path) -> tuple[EventSet, EventSet]:
    """Return the first 90 % of the recordings of each class to train, the others to test.

    Looks in root/CIFAR10-DVS, root/CIFAR10DVS, root/cifar10-dvs and root for the class folders,
    with ``.aedat`` files, or else ``.mat`` files. Within a class the files are in the order of
    their numbers. The test recordings are in a fixed order that mixes the classes.

    Raises:
        ValueError: If a class is missing, or has too few recordings to divide.
    """
    folder = first_folder("cifar10-dvs", root, _FOLDERS, CLASSES[0])
    parts: dict[str, list[tuple[Place, int]]] = {"train": [], "test": []}
    for label, name in enumerate(CLASSES):
        files = files_of(folder / name, ".aedat") or files_of(folder / name, ".mat")
        cut = int(_TRAIN * len(files) + 1e-9)
        if not 0 < cut < len(files):
            raise ValueError(
                f"cifar10-dvs: {folder / name} has {len(files)} recordings; 90 % of each class "
                "train and the others test, so it needs 2 or more."
            )
        parts["train"] += [(Place(file), label) for file in files[:cut]]
        parts["test"] += [(Place(file), label) for file in files[cut:]]
    train, test = (
        EventSet(
            torch.tensor([label for _, label in found]),
            len(CLASSES),
            f"cifar10-dvs/{part}",
            classes=CLASSES,
            places=[place for place, _ in found],
            read=_read,
            sensor=SENSOR,
        )
        for part, found in parts.items()
    )
    mixed = mixed_order(test)
    assert isinstance(mixed, EventSet)
    return train, mixed


def _read(place: Place) -> Recording:
    return (read_dat2mat if place.path.suffix == ".mat" else read_aedat2)(place.path)


def read_aedat2(path: Path) -> Recording:
    """Return the recording of an ``.aedat`` file of version 2 of a DVS128 camera.

    A record is an address and microseconds, big-endian, 32 bits each: polarity in bit 0 (0 for
    ON), x in bits 1 .. 7 counted from the right, y in bits 8 .. 14. As ``dat2mat.m`` does, x is
    turned to count from the left, and y is kept. Records of the synchronisation input (bit 15)
    are no events of pixels.

    Raises:
        BadRecording: If the file is truncated, of another version or of another camera.
    """
    with opened(path) as file:
        file.seek(skip_header(file, path, "2.0"))
        content = file.read()
    whole, rest = divmod(len(content), _RECORD.itemsize)
    if rest:
        raise BadRecording(
            f"{path}: record {whole}: has {rest} of {_RECORD.itemsize} bytes; the file is "
            "truncated."
        )
    stored = np.frombuffer(content, _RECORD)
    address, time = stored["address"].astype(np.int64), stored["time"].astype(np.int64)
    foreign = np.flatnonzero(address >> 16)
    if len(foreign):
        k = int(foreign[0])
        raise BadRecording(
            f"{path}: record {k}: address {address[k]:#010x} is not one of a DVS128; the file is "
            "damaged or of another camera."
        )
    records = np.flatnonzero(address & _SPECIAL == 0)
    address, time = address[records], time[records]
    x, y, p = 127 - (address >> 1 & 127), address >> 8 & 127, 1 - (address & 1)
    return Recording(time, x, y, p, SENSOR, str(path), records)


def read_dat2mat(path: Path) -> Recording:
    """Return the recording of a ``.mat`` file with the matrix that ``dat2mat.m`` returns.

    The matrix ``out1`` [N, 6] has microseconds in column 0, x and y from 0 in columns 3 and 4, and
    polarity 1 or -1 in column 5.

    Raises:
        BadRecording: If the file is damaged, has no such matrix, or has values of another kind.
    """
    try:
        rows = read_mat(path, "out1")
    except (OSError, ValueError) as error:
        raise BadRecording(str(error)) from error
    if rows.ndim != 2 or rows.shape[1] != _COLUMNS:
        raise BadRecording(f"{path}: out1 has {_COLUMNS} columns, got {list(rows.shape)}.")
    t, x, y = (_integers(path, rows[:, column]) for column in (0, 3, 4))
    polarity = rows[:, 5]
    other = np.flatnonzero(np.abs(polarity) != 1)
    if len(other):
        k = int(other[0])
        raise BadRecording(
            f"{path}: record {k}: polarity is 1 (ON) or -1 (OFF), got {polarity[k]:g}."
        )
    return Recording(t, x, y, polarity > 0, SENSOR, str(path))


def _integers(path: Path, column: NDArray[Any]) -> NDArray[np.int64]:
    broken = np.flatnonzero(~(np.isfinite(column) & (np.abs(column) < 2.0**53)))
    broken = broken if len(broken) else np.flatnonzero(column != np.floor(column))
    if len(broken):
        k = int(broken[0])
        raise BadRecording(f"{path}: record {k}: {column[k]:g} is not a whole number.")
    return column.astype(np.int64)
