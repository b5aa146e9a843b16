"""AEDAT 3.1, the format of cAER: packets of events, of which those of a span of time are read.

Source: iniVation, "File formats", AEDAT 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeguard.data.events.aedat import skip_header
from spikeguard.data.events.files import opened
from spikeguard.data.events.recording import BadRecording, Recording

__all__ = ["read_aedat3"]

_HEADER = np.dtype(
    [("type", "<u2"), ("source", "<u2")]
    + [(name, "<u4") for name in ("size", "ts", "overflow", "capacity", "number", "valid")]
)
_EVENT = np.dtype([("data", "<u4"), ("time", "<u4")])
_POLARITY = 1  # type of the packets of pixel events
_NO_END = 1 << 62
_SILENCE = 100_000  # microseconds that the sensor is never without an event


def read_aedat3(
    path: Path, sensor: tuple[int, int], start: int = 0, stop: int = _NO_END
) -> Recording:
    """Return the pixel events of a file with ``start <= t < stop``; times stay those of the file.

    An event packet has a header of 28 bytes and events of 8: an address with a valid bit, a
    polarity bit (1 for ON), y (15 bits) and x (15 bits), and 31 bits of microseconds, all
    little-endian. Packets of other types, such as those of the inertial sensor, hold no pixel
    events. Only the packets of this time are read.

    Args:
        path: An ``.aedat`` file of version 3.1.
        sensor: Height and width of the sensor.
        start: First microsecond.
        stop: Microsecond after the last.

    Raises:
        BadRecording: If a packet is damaged or truncated, an event is not one of the sensor or is
            out of order, or the file ends more than 0.1 s before ``stop``.
    """
    where = str(path) if stop == _NO_END else f"{path} from {start} to {stop} us"
    times, words, records, last = [], [], [], None
    with opened(path) as file:
        for packet, following in pairwise(chain(_packets(file, path), (None,))):
            if packet is None or packet.first >= stop:
                break
            if following is not None and following.first < start:
                continue  # the packet ends before
            events = packet.read(file, path)
            times.append(events["time"].astype(np.int64) + packet.base)
            words.append(events["data"].astype(np.int64))
            records.append(packet.record + np.arange(len(events)))
            if following is None:
                last = int(times[-1].max())
    if last is not None and stop != _NO_END and last < stop - _SILENCE:
        raise BadRecording(f"{where}: the file ends at {last} us; it is truncated.")
    empty = np.zeros(0, np.int64)
    t, data, number = (np.concatenate([empty, *each]) for each in (times, words, records))
    kept = _inside(t, start, stop) & (data & 1 == 1)
    t, data, number = t[kept], data[kept], number[kept]
    x, y, p = data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1
    return Recording(t, x, y, p, sensor, where, number)


@dataclass(frozen=True)
class _Packet:
    """An event packet: where its events are, their number, and the time of the first."""

    position: int
    number: int
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
            yield _Packet(position, head["number"], head["valid"], base, first, record)
            record += head["number"]
        position = end


def _inside(t: NDArray[np.int64], start: int, stop: int) -> NDArray[np.bool_]:
    """Return which events are in a span of time, and the first two that are out of order."""
    inside = (t >= start) & (t < stop)
    back = np.flatnonzero(t[1:] < t[:-1])
    if len(back):
        inside[back[0] : back[0] + 2] = True  # the recording is rejected, and names this record
    return inside
