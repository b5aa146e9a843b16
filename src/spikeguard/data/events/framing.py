"""Framing: events summed into T frames of equal duration or of equal count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeguard.data.events.recording import Recording

__all__ = ["BY", "VALUES", "Framing"]

BY = ("time", "count")
VALUES = ("binary", "counts")


@dataclass(frozen=True)
class Framing:
    """How the events of a recording become frames [T, C, H, W].

    Every event of a recording is in exactly one frame, with one exception: with ``window`` the
    events after the T-th window are left out.

    Args:
        T: Number of frames, >= 1.
        by: "time": all frames last equally long, from the first to the last event. "count": all
            frames have equally many events, to within one, in the order of the recording.
        values: "binary": 1 where there is an event, else 0. "counts": the number of events.
        polarity: Channels: 2 for OFF (channel 0) and ON (channel 1), 1 for both together.
        size: Height and width of the frames, at most those of the sensor, or one number for both;
            the size of the sensor when left out. Pixel (y, x) goes to cell (y h // H, x w // W),
            so events are added up and none is lost.
        window: Length of one frame: microseconds for "time", events for "count". When left out,
            the whole recording is divided into T parts.

    Raises:
        ValueError: If a value is none of these.

    Example:
        >>> events = Recording([0, 5, 9], x=[3, 3, 0], y=[1, 1, 0], p=[1, 1, 0], sensor=(2, 4))
        >>> Framing(T=2, values="counts").frames(events).sum((1, 2, 3))
        array([1, 2])
    """

    T: int
    by: str = "time"
    values: str = "binary"
    polarity: int = 2
    size: tuple[int, int] | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        _require_count("T", self.T)
        for name, known in (("by", BY), ("values", VALUES), ("polarity", (1, 2))):
            value = getattr(self, name)
            if value not in known or isinstance(value, bool):
                words = " or ".join(map(str, known))
                raise ValueError(f"frames: {name} is {words}, got {value!r}.")
        if self.window is not None:
            _require_count("window", self.window)
        if self.size is not None:
            object.__setattr__(self, "size", _pair(self.size))

    def describe(self) -> dict[str, Any]:
        """Return the fields as plain data; those that are left out are missing."""
        given = {key: value for key, value in asdict(self).items() if value is not None}
        return {**given, "size": list(self.size)} if self.size is not None else given

    def shape(self, sensor: tuple[int, int]) -> tuple[int, int, int]:
        """Return channels, height and width of a frame of this sensor (H, W).

        Raises:
            ValueError: If the frames would be larger than the sensor.
        """
        height, width = self.size or sensor
        if height > sensor[0] or width > sensor[1]:
            raise ValueError(
                f"frames: size is at most the sensor's, {sensor[0]} x {sensor[1]}, "
                f"got {height} x {width}."
            )
        return self.polarity, height, width

    def frames(self, recording: Recording) -> NDArray[Any]:
        """Return the frames [T, C, H, W]: uint8 0 or 1, or for counts int32 >= 0."""
        channels, height, width = self.shape(recording.sensor)
        bounds = self._bounds(recording.t)
        kept = slice(0, int(bounds[-1]))
        y, x = recording.y[kept].astype(np.intp), recording.x[kept].astype(np.intp)
        if (height, width) != recording.sensor:
            y, x = y * height // recording.sensor[0], x * width // recording.sensor[1]
        cell = y * width + x
        if channels == 2:
            cell += recording.p[kept].astype(np.intp) * (height * width)
        one = channels * height * width
        cell += np.repeat(np.arange(self.T) * one, np.diff(bounds))
        counts = np.bincount(cell, minlength=self.T * one).reshape(self.T, channels, height, width)
        return counts.astype(np.int32) if self.values == "counts" else (counts > 0).view(np.uint8)

    def _bounds(self, t: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the T + 1 positions in the recording between which the frames lie.

        Event k is in frame floor(k T / N) by count, floor((t_k - t_0) T / (t_N - t_0 + 1)) by time.
        """
        edges = np.arange(self.T + 1)
        if self.by == "count":
            n = len(t)
            return np.minimum(edges * self.window, n) if self.window else -(-edges * n // self.T)
        length = int(t[-1]) - int(t[0]) + 1
        starts = edges * self.window if self.window else -(-edges * length // self.T)
        return np.asarray(np.searchsorted(t, starts + t[0]))


def _require_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"frames: {name} is a whole number >= 1, got {value!r}.")


def _pair(size: object) -> tuple[int, int]:
    """Return height and width; one number stands for both."""
    pair = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"frames: size is a height and a width, or one number, got {size!r}.")
    for side in pair:
        _require_count("size", side)
    return pair
