"""DVS128 Gesture from its official ``.aedat`` files (version 3.1) and label files.

Source: Amir et al., "A low power, fully event-based gesture recognition system", CVPR 2017; the
format is that of https://inivation.com, AEDAT 3.1.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spikeguard.data.events.aedat import skip_header
from spikeguard.data.events.event_set import EventSet, Place
from spikeguard.data.events.files import first_folder, opened
from spikeguard.data.events.recording import BadRecording, Recording

__all__ = ["CLASSES", "read_gesture", "read_trial"]

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
_HEADER = np.dtype(
    [("type", "<u2"), ("source", "<u2")]
    + [(name, "<u4") for name in ("size", "ts", "overflow", "capacity", "number", "valid")]
)
_EVENT = np.dtype([("data", "<u4"), ("time", "<u4")])
_POLARITY = 1  # type of the packets of pixel events
_NO_END = 1 << 62
_SILENCE = 100_000  # microseconds that the sensor is never without an event


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
    return read_trial(place.path, start, stop)


def read_trial(path: Path, start: int = 0, stop: int = _NO_END) -> Recording:
    """Return the pixel events of a file with ``start <= t < stop``; times stay those of the file.

    An event packet has a header of 28 bytes and events of 8: an address with a valid bit, a
    polarity bit (1 for ON), y (15 bits) and x (15 bits), and 31 bits of microseconds, all
    little-endian. Packets of other types, such as those of the inertial sensor, hold no pixel
    events. Only the packets of the trial are read.

    Args:
        path: An ``.aedat`` file of version 3.1.
        start: First microsecond.
        stop: Microsecond after the last.

    Raises:
        BadRecording: If a packet is damaged or truncated, an event is not one of the sensor or is
            out of order, or the file ends before the trial does.
    """
    where = str(path) if stop == _NO_END else f"{path} from {start} to {stop} us"
    times, words, records, last = [], [], [], None
    with opened(path) as file:
        for packet, following in pairwise(chain(_packets(file, path), (None,))):
            if packet is None or packet.first >= stop:
                break
            if following is not None and following.first < start:
                continue  # the packet is before the trial
            events = packet.read(file, path)
            times.append(events["time"].astype(np.int64) + packet.base)
            words.append(events["data"].astype(np.int64))
            records.append(packet.record + np.arange(len(events)))
            if following is None:
                last = int(times[-1].max())
    if last is not None and stop != _NO_END and last < stop - _SILENCE:
        raise BadRecording(f"{where}: the file ends at {last} us; it is truncated.")
    empty = np.zeros(0, np.int64)
    return _recording(
        where,
        np.concatenate([empty, *times]),
        np.concatenate([empty, *words]),
        np.concatenate([empty, *records]),
        (start, stop),
    )


@dataclass(frozen=True)
class _Packet:
    """An event packet: where its events are, their number, and the time of the first."""

    position: int
    number: int
    capacity: int
    valid: int
    base: int  # microseconds that are added to the 31 bits
    first: int
    record: int  # number of its first event in the file

    def read(self, file: BufferedReader, path: Path) -> NDArray[np.void]:
        file.seek(self.position)
        events = np.frombuffer(file.read(self.number * _EVENT.itemsize), _EVENT)
        if int((events["data"] & 1).sum()) != self.valid:
            raise BadRecording(
                f"{path}: record {self.record}: its packet says {self.valid} valid events of "
                f"{self.number}, and marks {int((events['data'] & 1).sum())}."
            )
        return events


def _packets(file: BufferedReader, path: Path) -> Iterator[_Packet]:
    """Yield the packets of pixel events that are not empty, headers only."""
    position, record, last = skip_header(file, path, "3.1"), 0, 0
    size = file.seek(0, 2)
    while position < size:
        file.seek(position)
        raw = file.read(_HEADER.itemsize + _EVENT.itemsize)
        where = f"{path}: record {record}"
        if len(raw) < _HEADER.itemsize:
            raise BadRecording(f"{where}: the header of a packet is truncated.")
        head = {name: int(np.frombuffer(raw, _HEADER, 1)[name][0]) for name in _HEADER.names or ()}
        position += _HEADER.itemsize
        end = position + head["capacity"] * head["size"]
        sound = head["valid"] <= head["number"] <= head["capacity"] and head["size"] > 0
        if head["type"] == _POLARITY:
            sound &= (head["size"], head["ts"]) == (_EVENT.itemsize, 4)
        if not sound:
            raise BadRecording(
                f"{where}: this is no header of an event packet; the file is damaged."
            )
        if end > size:
            raise BadRecording(
                f"{where}: its packet has {end - position} bytes, the file {size - position} more; "
                "it is truncated."
            )
        if head["type"] == _POLARITY and head["number"]:
            base = head["overflow"] << 31
            first = int(np.frombuffer(raw, _EVENT, 1, _HEADER.itemsize)["time"][0]) + base
            if first < last:
                raise BadRecording(
                    f"{where}: time runs backwards, a packet of {first} us after one of {last} us; "
                    "the records are shuffled."
                )
            last = first
            counts = (head["number"], head["capacity"], head["valid"])
            yield _Packet(position, *counts, base, first, record)
            record += head["number"]
        position = end


def _recording(
    where: str,
    t: NDArray[np.int64],
    data: NDArray[np.int64],
    records: NDArray[np.int64],
    span: tuple[int, int],
) -> Recording:
    """Return the valid events within a span of time, after the order of all has been checked."""
    back = np.flatnonzero(t[1:] < t[:-1])
    low, high = span
    inside = (t >= low) & (t < high)
    if len(back):
        inside[back[0] : back[0] + 2] = True  # so that the message names this record
    kept = inside & (data & 1 == 1)
    t, data, records = t[kept], data[kept], records[kept]
    x, y, p = data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1
    return Recording(t, x, y, p, SENSOR, where, records)
