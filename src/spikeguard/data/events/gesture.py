"""DVS128 Gesture from its official ``.aedat`` files (version 3.1), label files and lists.

Source: Amir et al., "A low power, fully event-based gesture recognition system", CVPR 2017.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from spikeguard.data.events.aedat3 import read_aedat3
from spikeguard.data.events.event_set import EventSet, Place
from spikeguard.data.events.files import first_folder
from spikeguard.data.events.recording import Recording

__all__ = ["CLASSES", "read_gesture"]

SENSOR = (128, 128)
CLASSES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter-clockwise",
    "left arm clockwise",
    "left arm counter-clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
_FOLDERS = ("DvsGesture", "DVS128Gesture", "DVS-Gesture", "dvs-gesture", ".")
_LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
_COLUMNS = ["class", "startTime_usec", "endTime_usec"]


def read_gesture(root: Path) -> tuple[EventSet, EventSet]:
    """Return the trials of the official training and test lists.

    Looks in root/DvsGesture, root/DVS128Gesture, root/DVS-Gesture, root/dvs-gesture and root.

    Raises:
        ValueError: If a list, a file of a list, or a label file is missing or damaged.
    """
    folder = first_folder("dvs-gesture", root, _FOLDERS, _LISTS["train"])
    train, test = (_read_part(folder, each, f"dvs-gesture/{part}") for part, each in _LISTS.items())
    return train, test


def _read_part(folder: Path, listed: str, name: str) -> EventSet:
    path = folder / listed
    if not path.is_file():
        raise ValueError(f"{name}: {path} not found.")
    labels, places = [], []
    for file in path.read_text(encoding="utf-8").split():
        recording = folder / file
        if not recording.is_file():
            raise ValueError(f"{name}: {recording}, named in {path}, not found.")
        for label, start, stop in _trials(recording.with_name(f"{recording.stem}_labels.csv")):
            labels.append(label)
            places.append(Place(recording, (start, stop)))
    if not labels:
        raise ValueError(f"{name}: {path} names no recording.")
    return EventSet(
        torch.tensor(labels),
        len(CLASSES),
        name,
        classes=CLASSES,
        places=places,
        read=_read,
        sensor=SENSOR,
    )


def _trials(path: Path) -> list[tuple[int, int, int]]:
    """Return class 0 .. 10, start and end in microseconds of each line of a label file."""
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read; every .aedat has its _labels.csv.") from error
    if not rows or [each.strip() for each in rows[0]] != _COLUMNS:
        raise ValueError(f"{path}: its first line is {','.join(_COLUMNS)}.")
    found = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        try:
            label, start, stop = map(int, row)
        except ValueError:
            label = start = stop = -1
        if not (1 <= label <= len(CLASSES) and 0 <= start < stop):
            raise ValueError(
                f"{path}: line {number}: class 1 .. {len(CLASSES)}, start and a later end in "
                f"microseconds, got {','.join(row)!r}."
            )
        found.append((label - 1, start, stop))
    return found


def _read(place: Place) -> Recording:
    start, stop = place.part
    return read_aedat3(place.path, SENSOR, start, stop)
