"""EventSet: labelled recordings that are read from disk and framed batch by batch."""

from __future__ import annotations

import hashlib
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikeguard.data.events.framing import Framing
from spikeguard.data.events.recording import BadRecording, Recording
from spikeguard.data.stored_set import StoredSet
from spikeguard.encoders.input_space import PIXELS, InputSpace

__all__ = ["UNSCALED", "EventSet", "Place", "SkippedRecordingWarning"]

# Mean and scale of frames with one or two channels, which networks take as they are.
UNSCALED = {1: ((0.0,), (1.0,)), 2: ((0.0, 0.0), (1.0, 1.0))}


class SkippedRecordingWarning(UserWarning):
    """Recordings that cannot be read were left out; results are on fewer of them."""


@dataclass(frozen=True)
class Place:
    """Where a recording is stored.

    Args:
        path: The file.
        part: The part of a file with several recordings, as its reader needs it.
    """

    path: Path
    part: tuple[int, ...] = ()


def _space(framing: Framing) -> InputSpace:
    """Return the ``InputSpace`` of frames: 0 and 1, or whole numbers >= 0; with a time axis."""
    high = 1.0 if framing.values == "binary" else float("inf")
    return InputSpace(high=high, whole=True, temporal=True)


def _in_memory(place: Place) -> Recording:
    raise BadRecording(f"{place.path}: has no reader.")


@dataclass(frozen=True, eq=False)
class EventSet(StoredSet):
    """Labelled recordings of one sensor. Only their places are in memory, not their events.

    It takes the place of an ``ImageSet``; the inputs of ``batch`` have a time axis. There are no
    ``images`` in memory.

    Args:
        labels: Class of each recording [N], any integer type, in 0 .. ``num_classes`` - 1.
        num_classes: Number of classes, >= 1.
        name: Name of the set in messages and results.
        classes: Names of the classes, one for each, or empty.
        places: Where each recording is stored, or the recordings themselves.
        read: Reads a recording from its place; needed unless the recordings are given.
        sensor: Height and width of the sensor in pixels.
        framing: How recordings become frames; ``dataclasses.replace`` sets another.
        skipped: Messages about the recordings that ``readable`` left out.
        space: Set by the set itself: the ``InputSpace`` of frames of this framing.

    Raises:
        ValueError: If labels, class names or framing do not fit.

    Example:
        >>> events = Recording([0, 5], x=[3, 3], y=[1, 1], p=[1, 0], sensor=(2, 4))
        >>> data = EventSet([1], 2, "toy", places=[events], sensor=(2, 4), framing=Framing(T=3))
        >>> x, y = data.batch([0])
        >>> tuple(x.shape), y.tolist(), data.shape
        ((1, 3, 2, 2, 4), [1], (2, 2, 4))
    """

    kind: ClassVar[str] = "recordings"
    where: ClassVar[str] = "places"

    peak: float = field(init=False, default=1.0, repr=False)
    places: Sequence[Place | Recording] = field(kw_only=True, repr=False)
    read: Callable[[Place], Recording] = field(kw_only=True, default=_in_memory, repr=False)
    sensor: tuple[int, int] = field(kw_only=True)
    framing: Framing = field(kw_only=True, default=Framing(T=10))
    skipped: tuple[str, ...] = field(kw_only=True, default=(), repr=False)
    space: InputSpace = field(kw_only=True, default=PIXELS, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", tuple(self.places))
        object.__setattr__(self, "space", _space(self.framing))
        self._check_stored()
        try:
            self.framing.shape(self.sensor)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one frame; the number of frames is ``framing.T``."""
        return self.framing.shape(self.sensor)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of events, labels, sensor and framing in hexadecimal; reads every recording."""
        total = hashlib.sha256(repr((self.sensor, self.framing.describe())).encode())
        for position, label in enumerate(self.labels.tolist()):
            recording = self.recording(position)
            part = hashlib.sha256(f"{label} {len(recording)}".encode())
            for array in (recording.t, recording.x, recording.y, recording.p):
                part.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            total.update(part.digest())
        return total.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return digest, number, shape [T, C, H, W], framing and class names as plain data."""
        found = {
            "images": self.digest,
            "count": len(self),
            "shape": [self.framing.T, *self.shape],
            "frames": self.framing.describe(),
        }
        found |= {"classes": list(self.classes)} if self.classes else {}
        return {**found, "skipped": list(self.skipped)} if self.skipped else found

    def recording(self, position: int) -> Recording:
        """Return the events of one recording.

        Raises:
            BadRecording: If it cannot be read, or is of another sensor.
        """
        place = self.places[position]
        recording = place if isinstance(place, Recording) else self.read(place)
        if recording.sensor != self.sensor:
            raise BadRecording(
                f"{recording.where}: its sensor has {recording.sensor[0]} x {recording.sensor[1]} "
                f"pixels, that of {self.name} {self.sensor[0]} x {self.sensor[1]}."
            )
        return recording

    def batch(self, index: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Return x float32 [B, T, C, H, W], 0 and 1 or counts, and y int64 [B].

        Raises:
            BadRecording: If a recording cannot be read.
        """
        positions = self._positions(index)
        x = torch.empty(len(positions), self.framing.T, *self.shape)
        for row, position in zip(x, positions.tolist(), strict=True):
            row.copy_(torch.from_numpy(self.framing.frames(self.recording(position))))
        return x, self.labels[positions]

    def subset(self, index: Tensor | Sequence[int] | slice) -> EventSet:
        """Return the recordings at ``index``, in that order."""
        positions = self._positions(index)
        places = tuple(self.places[position] for position in positions.tolist())
        return replace(self, labels=self.labels[positions], places=places)

    def read_all(self) -> EventSet:
        """Read every recording once and return the set.

        Raises:
            BadRecording: If one cannot be read.
        """
        for position in range(len(self)):
            self.recording(position)
        return self

    def readable(self) -> EventSet:
        """Return the recordings that can be read, with messages about the others in ``skipped``.

        Reads every recording once.

        Raises:
            BadRecording: If none can be read; the message is that of the first.
        """
        kept, problems = [], []
        for position in range(len(self)):
            try:
                self.recording(position)
            except BadRecording as error:
                problems.append(str(error))
            else:
                kept.append(position)
        if not kept:
            raise BadRecording(problems[0])
        return replace(self.subset(kept), skipped=(*self.skipped, *problems))

    def warn_of_skipped(self) -> None:
        """Warn of recordings that were left out; in the main process only."""
        if self.skipped and multiprocessing.parent_process() is None:
            warnings.warn(
                f"{self.name}: {len(self.skipped)} of {len(self.skipped) + len(self)} recordings "
                f"are skipped; the first: {self.skipped[0]}",
                SkippedRecordingWarning,
                stacklevel=3,
            )
