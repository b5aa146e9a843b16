"""Many recordings in one npz or HDF5 file, one after another; each is read on its own."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeguard.data.conversion import as_labels
from spikeguard.data.events.event_set import EventSet, Place
from spikeguard.data.events.hdf5_files import HDF5, opened_hdf5
from spikeguard.data.events.recording import BadRecording, Recording

__all__ = ["is_event_file", "read_event_file"]

_EVENTS = ("t", "x", "y", "p")
_INDEX = ("offsets", "labels", "sensor")
_WHAT = (
    "a file of recordings has t (whole microseconds), x, y, p (0 OFF, 1 ON), one number an event; "
    "offsets [N + 1], recording i being rows offsets[i] to offsets[i + 1]; labels [N]; and sensor "
    "(height, width)"
)
_LOCAL = struct.Struct("<26xHH")  # lengths of name and extra field in a zip entry's own header


def is_event_file(path: Path) -> bool:
    """Whether a path is an HDF5 file, or an npz file with two of t, p and offsets."""
    if path.suffix.lower() in HDF5:
        return path.is_file()
    try:
        with zipfile.ZipFile(path) as archive:
            return len({"t.npy", "p.npy", "offsets.npy"} & set(archive.namelist())) > 1
    except Exception:  # no whole archive; the reader of arrays says so
        return False


def read_event_file(path: Path) -> Mapping[str | None, EventSet]:
    """Return the recordings of a file by part; the key None is for a file without parts.

    The file has arrays t (whole microseconds), x, y and p (0 OFF, 1 ON) with the events of all
    recordings, ``offsets`` [N + 1] (recording i is rows ``offsets[i]`` to ``offsets[i + 1]``),
    ``labels`` [N], and ``sensor`` (height, width). With ``is_test`` [N], 0 or 1, it has a training
    and a test part. An npz file is not compressed (``np.savez``), so that a recording is read
    without the others.

    Raises:
        ValueError: If the file is damaged, compressed, or these arrays do not fit together.
    """
    with _opened(path) as file:
        missing = [name for name in (*_EVENTS, *_INDEX) if name not in file]
        if missing:
            raise ValueError(f"{path}: holds no {missing[0]!r}; {_WHAT}.")
        offsets, labels, sensor = (np.asarray(file[name][...]) for name in _INDEX)
        lengths = {name: len(file[name]) for name in _EVENTS}
        is_test = np.asarray(file["is_test"][...]) if "is_test" in file else None
    bounds, side = _checked(path, offsets, lengths, labels, sensor)
    classes = as_labels(torch.from_numpy(labels.astype(np.int64)), str(path))
    whole = EventSet(
        classes,
        int(classes.max()) + 1,
        path.name,
        places=[Place(path, (start, stop)) for start, stop in bounds],
        read=_read,
        sensor=side,
    )
    if is_test is None:
        return {None: whole}
    if is_test.shape != labels.shape or not np.isin(is_test, (0, 1)).all() or is_test.all():
        raise ValueError(f"{path}: is_test is 0 or 1 for each recording, and 0 for some.")
    parts = {"train": is_test == 0, "test": is_test == 1}
    return {
        part: replace(whole.subset(np.flatnonzero(chosen).tolist()), name=f"{path.name}/{part}")
        for part, chosen in parts.items()
        if chosen.any()
    }


def _checked(
    path: Path,
    offsets: NDArray[Any],
    lengths: Mapping[str, int],
    labels: NDArray[Any],
    sensor: NDArray[Any],
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Return the rows of each recording, and the sensor; no row may be left out."""
    if len(set(lengths.values())) != 1:
        counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise ValueError(f"{path}: each event has t, x, y and p, got {counts}.")
    if any(each.ndim != 1 or each.dtype.kind not in "iu" for each in (offsets, labels, sensor)):
        raise ValueError(f"{path}: offsets, labels and sensor are lists of whole numbers.")
    if len(sensor) != 2 or len(offsets) != len(labels) + 1 or not len(labels):
        raise ValueError(
            f"{path}: holds {len(labels)} labels, {len(offsets)} offsets and {len(sensor)} "
            f"sides of a sensor; {_WHAT}."
        )
    rows = offsets.astype(np.int64)
    if rows[0] != 0 or rows[-1] != lengths["t"] or (np.diff(rows) < 0).any():
        raise ValueError(
            f"{path}: offsets rise from 0 to the {lengths['t']} events, got {rows[0]} to "
            f"{rows[-1]}."
        )
    pairs = list(zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True))
    return pairs, (int(sensor[0]), int(sensor[1]))


def _read(place: Place) -> Recording:
    """Return one recording; the record in a message is the row in the file."""
    start, stop = place.part
    if start == stop:
        raise BadRecording(f"{place.path}: record {start}: a recording holds no events.")
    with _opened(place.path) as file:
        try:
            t, x, y, p = (np.array(file[name][start:stop]) for name in _EVENTS)
            height, width = map(int, file["sensor"][...])
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise BadRecording(f"{place.path}: record {start}: cannot be read: {error}.") from error
    rows = np.arange(start, start + len(t))
    return Recording(t, x, y, p, (height, width), str(place.path), rows)


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Any]]:
    """Open a file as arrays by name, of which slices can be read."""
    if path.suffix.lower() in HDF5:
        with opened_hdf5(path) as file:
            yield file
    else:
        yield _mapped(path)


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an uncompressed npz file, mapped and not in memory."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            wanted = [each for each in archive.infolist() if each.filename.endswith(".npy")]
            return {each.filename[:-4]: _array(path, file, each) for each in wanted}
    except BadRecording:
        raise
    except Exception as error:  # the parsers of zip and npy raise a dozen types
        said = str(error).partition("\n")[0].rstrip(".")
        raise BadRecording(f"{path}: not a whole npz file ({said}).") from error


def _array(path: Path, file: Any, entry: zipfile.ZipInfo) -> NDArray[Any]:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise BadRecording(
            f"{path}: {entry.filename} is compressed, so no recording can be read alone; save it "
            "with np.savez."
        )
    file.seek(entry.header_offset)
    name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    start = entry.header_offset + _LOCAL.size + name + extra
    file.seek(start)
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "biuf" or min(shape, default=0) < 0:
        raise ValueError(f"{entry.filename} holds {dtype}, not numbers")
    size = math.prod(shape) * dtype.itemsize
    if file.tell() - start + size != entry.file_size:
        raise ValueError(f"{entry.filename} declares {shape} {dtype} in {entry.file_size} bytes")
    if not size:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape)
