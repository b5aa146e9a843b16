"""Event recordings of the user's own: arrays t, x, y, p in npz or HDF5 files, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikeguard.data.columns import part_folders
from spikeguard.data.events.event_set import EventSet, Place
from spikeguard.data.events.files import files_of
from spikeguard.data.events.hdf5_files import HDF5, opened_hdf5
from spikeguard.data.events.recording import BadRecording, Recording
from spikeguard.data.stratified import mixed_order
from spikeguard.storage.npz_files import DamagedFile, read_npz

__all__ = ["from_recordings", "has_events", "read_arrays", "read_event_folder"]

_SUFFIXES = (".npz", *HDF5)
_NAMES = ("t", "x", "y", "p", "sensor")
_WHAT = (
    "a recording has arrays t (whole microseconds), x, y, p (0 OFF, 1 ON), one number an event, "
    "and sensor (height, width)"
)


def from_recordings(
    recordings: Sequence[Recording],
    labels: Any,
    *,
    classes: Sequence[str] = (),
    num_classes: int | None = None,
    name: str = "recordings",
) -> EventSet:
    """Return recordings that are in memory as a set.

    Args:
        recordings: Recordings of one sensor.
        labels: Class of each [N], from 0.
        classes: Names of the classes.
        num_classes: Number of classes; that of the names, else the largest label + 1.
        name: Name in messages and results.

    Raises:
        ValueError: If there are none, or the labels or the sensors do not fit.
    """
    if not recordings:
        raise ValueError(f"{name}: holds no recordings.")
    if num_classes is None:
        num_classes = len(classes) or int(torch.as_tensor(labels).max()) + 1
    sensor = recordings[0].sensor
    made = EventSet(labels, num_classes, name, tuple(classes), places=recordings, sensor=sensor)
    for position in range(len(made)):
        made.recording(position)  # of the same sensor
    return made


def has_events(path: Path) -> bool:
    """Whether a path is a folder of class folders of recordings, with or without parts."""
    return path.is_dir() and bool(_class_files(path) or _part_folders(path))


def read_event_folder(path: Path) -> Mapping[str | None, EventSet]:
    """Return the recordings of a folder by part; the key None is for a folder without parts.

    ``gestures/train/wave/001.npz`` is a recording of class "wave" of the part "train" (or "val",
    "test"); ``gestures/wave/001.npz`` is one of a set without parts. The files are npz or HDF5,
    one recording each, with arrays t (whole microseconds), x, y and p (0 OFF, 1 ON), one number an
    event, and ``sensor`` (height, width). The classes are numbered by their sorted names.

    Raises:
        ValueError: If two folders are for one part, there are parts and another folder, a part has
            a class that the training recordings do not have, or the first recording cannot be read.
    """
    parts: dict[str | None, Path] = dict(_part_folders(path).items())
    files = {part: _class_files(folder) for part, folder in (parts or {None: path}).items()}
    first = files.get("train") or next(iter(files.values()))
    classes = tuple(sorted(first))
    sensor = read_arrays(Place(next(iter(first.values()))[0])).sensor
    found: dict[str | None, EventSet] = {}
    for part, each in files.items():
        unknown = sorted(each.keys() - set(classes))
        if unknown:
            raise ValueError(
                f"{parts[part]}: {unknown[0]} is no class of the training recordings, which are "
                f"{', '.join(classes)}; rename or remove the folder."
            )
        pairs = [(Place(file), classes.index(name)) for name in sorted(each) for file in each[name]]
        made = EventSet(
            torch.tensor([label for _, label in pairs]),
            len(classes),
            f"{path.resolve().name}/{part}" if part else path.resolve().name,
            classes,
            places=[place for place, _ in pairs],
            read=read_arrays,
            sensor=sensor,
        )
        mixed = mixed_order(made)
        assert isinstance(mixed, EventSet)
        found[part] = mixed
    return found


def read_arrays(place: Place) -> Recording:
    """Return the recording of an npz or HDF5 file.

    Raises:
        BadRecording: If the file is damaged, an array is missing, or the events are rejected.
    """
    path = place.path
    try:
        found = (_hdf5 if path.suffix.lower() in HDF5 else read_npz)(path, _NAMES)
    except (DamagedFile, OSError) as error:
        said = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise BadRecording(f"{path}: {said}; {_WHAT}.") from error
    sensor = np.asarray(found["sensor"])
    if sensor.shape != (2,) or sensor.dtype.kind not in "iu":
        raise BadRecording(f"{path}: sensor is (height, width), got {sensor.tolist()}.")
    height, width = map(int, sensor)
    t, x, y, p = (found[name] for name in _NAMES[:4])
    return Recording(t, x, y, p, (height, width), str(path))


def _hdf5(path: Path, names: Sequence[str]) -> dict[str, Any]:
    with opened_hdf5(path) as file:
        missing = [name for name in names if name not in file]
        if missing:
            raise BadRecording(f"{path}: it holds no {missing[0]!r}; {_WHAT}.")
        return {name: file[name][()] for name in names}


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """Return the recordings of each class folder that has some, in the order of their numbers."""
    folders = [each for each in sorted(folder.iterdir()) if not each.name.startswith(".")]
    found = {each.name: files_of(each, *_SUFFIXES) for each in folders}
    return {name: files for name, files in found.items() if files}


def _part_folders(path: Path) -> dict[str, Path]:
    """Return the folders train, val, test that have class folders of recordings."""
    folders = [each for each in sorted(path.iterdir()) if each.is_dir() and _class_files(each)]
    return part_folders(path, folders, (path / name for name in _class_files(path)))
