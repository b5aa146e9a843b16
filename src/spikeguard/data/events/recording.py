"""Recording: the events of one recording in arrays, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BadRecording", "Recording"]

_LARGEST = 1 << 16  # pixels along a side; positions are kept in 16 bits


class BadRecording(ValueError):
    """A recording cannot be used; the message is one line that names the file and the record."""


@dataclass(frozen=True, eq=False)
class Recording:
    """The events of one recording, in the order of time.

    Args:
        t: Time of each event [N] in whole microseconds, never decreasing; kept as int64.
        x: Column of each event [N], in 0 .. W - 1; kept as uint16.
        y: Row of each event [N], in 0 .. H - 1; kept as uint16.
        p: Polarity of each event [N], 0 for OFF and 1 for ON; kept as uint8.
        sensor: Height and width (H, W) of the sensor in pixels.
        where: The file, or another name of the recording, for messages.
        records: Number of each event's record in the file [N], for messages; 0, 1, ... by default.

    Raises:
        BadRecording: If there is no event, the arrays differ in length, or an event is outside
            the sensor, earlier than the one before it, or of another polarity.

    Example:
        >>> events = Recording([0, 5], x=[3, 3], y=[1, 1], p=[1, 0], sensor=(2, 4))
        >>> len(events), events.duration
        (2, 5)
    """

    t: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.uint8]
    sensor: tuple[int, int]
    where: str = "recording"

    def __init__(
        self,
        t: ArrayLike,
        x: ArrayLike,
        y: ArrayLike,
        p: ArrayLike,
        sensor: tuple[int, int],
        where: str = "recording",
        records: NDArray[Any] | None = None,
    ) -> None:
        given = {
            name: _whole(where, name, array)
            for name, array in zip("txyp", (t, x, y, p), strict=True)
        }
        height, width = sensor
        if not (0 < height <= _LARGEST and 0 < width <= _LARGEST):
            raise BadRecording(
                f"{where}: the sensor has {height} x {width} pixels; sides are in 1 .. {_LARGEST}."
            )
        _check(where, given, (height, width), records)
        for name, dtype in (("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.uint8)):
            object.__setattr__(self, name, given[name].astype(dtype, copy=False))
        object.__setattr__(self, "sensor", (int(height), int(width)))
        object.__setattr__(self, "where", where)

    def __len__(self) -> int:
        return len(self.t)

    @property
    def duration(self) -> int:
        """Microseconds from the first to the last event."""
        return int(self.t[-1] - self.t[0])


def _whole(where: str, name: str, array: ArrayLike) -> NDArray[Any]:
    """Return numbers as an integer array [N]; times in seconds are not guessed."""
    found = np.asarray(array)
    if found.ndim != 1:
        raise BadRecording(f"{where}: {name} is one number an event [N], got {list(found.shape)}.")
    if found.dtype == bool:
        return found.view(np.uint8)
    if found.dtype.kind not in "iu" and found.size:
        remedy = "; of seconds write (t * 1e6).astype('int64')" if name == "t" else ""
        unit = "whole microseconds" if name == "t" else "whole numbers"
        raise BadRecording(f"{where}: {name} is in {unit}, got {found.dtype}{remedy}.")
    return found


def _check(
    where: str,
    given: dict[str, NDArray[Any]],
    sensor: tuple[int, int],
    records: NDArray[Any] | None,
) -> None:
    """Raise BadRecording for the first event that cannot be one of this sensor."""
    t, x, y, p = given.values()
    height, width = sensor

    def record(k: int) -> str:
        return f"{where}: record {k if records is None else records[k]}"

    if len({len(each) for each in given.values()}) != 1:
        counts = ", ".join(f"{len(each)} {name}" for name, each in given.items())
        raise BadRecording(f"{where}: each event has t, x, y and p, got {counts}.")
    if not len(t):
        raise BadRecording(f"{where}: holds no events.")
    if x.max() >= width or y.max() >= height or x.min() < 0 or y.min() < 0:
        k = int(np.flatnonzero((x >= width) | (y >= height) | (x < 0) | (y < 0))[0])
        raise BadRecording(
            f"{record(k)}: x {x[k]}, y {y[k]} is outside the sensor (x in 0 .. "
            f"{width - 1}, y in 0 .. {height - 1}); the file is damaged or of another camera."
        )
    if p.max() > 1 or p.min() < 0:
        k = int(np.flatnonzero((p > 1) | (p < 0))[0])
        raise BadRecording(f"{record(k)}: polarity is 0 (OFF) or 1 (ON), got {p[k]}.")
    back = t[1:] < t[:-1]
    if back.any():
        k = int(back.argmax()) + 1
        raise BadRecording(
            f"{record(k)}: time runs backwards, {t[k]} us after {t[k - 1]} us; the records "
            "are damaged or shuffled."
        )
