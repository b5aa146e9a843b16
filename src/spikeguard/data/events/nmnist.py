"""N-MNIST from its official ``.bin`` files.

Source: Orchard, Jayawant, Cohen and Thakor, "Converting static image datasets to spiking
neuromorphic datasets using saccades", Frontiers in Neuroscience 9:437, 2015, and its readme.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from spikeguard.data.events.event_set import EventSet, Place
from spikeguard.data.events.files import files_of, first_folder, number_of, opened
from spikeguard.data.events.recording import BadRecording, Recording

__all__ = ["read_bin", "read_nmnist"]

SENSOR = (34, 34)
_RECORD = 5  # bytes of an event
_OVERFLOW, _STEP = 240, 1 << 13  # a record in row 240 is no event: it adds 8192 us to what follows
_FOLDERS = ("N-MNIST", "NMNIST", "nmnist", ".")
_PARTS = {"train": "Train", "test": "Test"}


def read_nmnist(root: Path) -> tuple[EventSet, EventSet]:
    """Return training and test recordings; looks in root/N-MNIST, root/NMNIST, root/nmnist, root.

    The folder may hold a part of the data set. The recordings are in the order of their numbers,
    which is that of the images of MNIST.

    Raises:
        ValueError: If a folder is missing or empty.
    """
    folder = first_folder("nmnist", root, _FOLDERS, "Train")
    train, test = (_read_part(folder / name, f"nmnist/{part}") for part, name in _PARTS.items())
    return train, test


def _read_part(folder: Path, name: str) -> EventSet:
    files = [(file, k) for k in range(10) for file in files_of(folder / str(k), ".bin")]
    if not files:
        raise ValueError(f"{name}: {folder} has no recordings, {folder}/0/00002.bin and so on.")
    files.sort(key=lambda each: (number_of(each[0]), each[1]))
    return EventSet(
        torch.tensor([digit for _, digit in files]),
        10,
        name,
        places=[Place(file) for file, _ in files],
        read=_read,
        sensor=SENSOR,
    )


def _read(place: Place) -> Recording:
    return read_bin(place.path)


def read_bin(path: Path, sensor: tuple[int, int] = SENSOR) -> Recording:
    """Return the recording of a ``.bin`` file.

    A record has 40 bits, big-endian: x (8), y (8), polarity (1, 1 for ON), microseconds (23). A
    record with y = 240 is no event of a pixel: the clock has passed 8192 us more than the 23 bits
    show, for it and for everything after it. The readers of the data set's authors treat it so.

    Args:
        path: The file.
        sensor: Height and width of the sensor.

    Raises:
        BadRecording: If the file is empty or truncated, or a record is no event of this sensor.
    """
    with opened(path) as file:
        content = np.frombuffer(file.read(), np.uint8)
    if len(content) % _RECORD:
        raise BadRecording(
            f"{path}: record {len(content) // _RECORD}: has {len(content) % _RECORD} of {_RECORD} "
            "bytes; the file is truncated."
        )
    x, y, *clock = content.reshape(-1, _RECORD).T
    high, middle, low = (each.astype(np.int64) for each in clock)
    p, t = (high >> 7).astype(np.uint8), (high & 127) << 16 | middle << 8 | low
    overflow, records = y == _OVERFLOW, None
    if sensor[0] <= _OVERFLOW and overflow.any():
        t += np.cumsum(overflow) * _STEP
        records = np.flatnonzero(~overflow)
        t, x, y, p = t[records], x[records], y[records], p[records]
    return Recording(t, x, y, p, sensor, str(path), records)
