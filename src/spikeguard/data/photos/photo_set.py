"""PhotoSet: labelled image files that are decoded batch by batch; only their names are held."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeguard.data.photos.decoding import DRAWS, Job
from spikeguard.data.photos.reading_ahead import Reading, finish, start
from spikeguard.data.stored_set import StoredSet
from spikeguard.encoders.input_space import PIXELS, InputSpace
from spikeguard.rng import SampleStreams, key

__all__ = ["WHILE_DECODING", "PhotoSet"]

WHILE_DECODING = ("resized_crop", "flip")  # augmentations that a PhotoSet applies itself
_CHUNK = 1024  # images that ``read_all`` holds


@dataclass(frozen=True, eq=False)
class PhotoSet(StoredSet):
    """Labelled image files of any size and colour, cut to one size when they are read.

    It takes the place of an ``ImageSet``. There are no ``images`` in memory: a file name of about
    30 bytes and a label for each, and at most two batches.

    Args:
        labels: Class of each image [N], any integer type, in 0 .. ``num_classes`` - 1.
        num_classes: Number of classes, >= 1.
        name: Name of the set in messages and results.
        classes: Names of the classes, one for each, or empty.
        root: Folder of the files.
        files: Their paths inside it [N], bytes (an array of type "S", or a list of ``bytes``).
        size: Height and width of the inputs in pixels, >= 1.
        drawn: Augmentations of ``training_batch``, out of ``WHILE_DECODING``.

    Raises:
        ValueError: If labels, class names, size or augmentations are not as above.
    """

    kind: ClassVar[str] = "images"
    where: ClassVar[str] = "files"

    peak: float = field(init=False, default=255.0, repr=False)
    root: Path = field(kw_only=True)
    files: NDArray[np.bytes_] = field(kw_only=True, repr=False)
    size: int = field(kw_only=True)
    drawn: tuple[str, ...] = field(kw_only=True, default=())
    space: InputSpace = field(kw_only=True, default=PIXELS, repr=False)
    _ahead: dict[bytes, Reading] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        title = f"PhotoSet {self.name!r}"
        object.__setattr__(self, "files", np.asarray(self.files, np.bytes_))
        self._check_stored()
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"{title}: size is a whole number of pixels >= 1, got {self.size!r}.")
        other = next((name for name in self.drawn if name not in WHILE_DECODING), None)
        if other is not None:
            raise ValueError(f"{title}: drawn is out of {WHILE_DECODING}, got {other!r}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input."""
        return 3, self.size, self.size

    @cached_property
    def digest(self) -> str:
        """SHA-256 of file names, labels and size in hexadecimal; no file is opened.

        A damaged file may be replaced by an intact copy, and a training that stopped at it resumed.
        """
        total = hashlib.sha256(f"photos {self.size}".encode())
        total.update(b"\0".join(self.files.tolist()))
        total.update(self.labels.numpy().astype("<i8").tobytes())
        return total.hexdigest()

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 of ``digest`` and the bytes of every file; results are kept apart by it."""
        total = hashlib.sha256(self.digest.encode())
        for file in self.files.tolist():
            with (self.root / os.fsdecode(file)).open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        return total.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return digest, number, shape and class names as plain data."""
        found = {"images": self.digest, "count": len(self), "shape": list(self.shape)}
        return {**found, "classes": list(self.classes)} if self.classes else found

    def batch(self, index: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Return the centres of images, x float32 [B, 3, size, size] in [0, 1], and y int64 [B].

        Raises:
            BadImage: If a file cannot be decoded.
        """
        positions = self._positions(index)
        return _scaled(finish(start(self._job(positions)))), self.labels[positions]

    def training_batch(
        self, index: Tensor | Sequence[int] | slice, *, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Return images as for ``batch``, augmented as ``drawn`` says.

        The draws of an image depend on the seed, the epoch and its position in the set alone.

        Raises:
            BadImage: If a file cannot be decoded.
        """
        positions = self._positions(index)
        started = self._ahead.pop(_key(positions, seed, epoch), None)
        reading = start(self._job(positions, seed, epoch)) if started is None else started
        return _scaled(finish(reading)), self.labels[positions]

    def read_ahead(self, index: Tensor | Sequence[int] | slice, *, seed: int, epoch: int) -> None:
        """Start to decode a batch that ``training_batch`` will be asked for, this one or the next.

        An earlier batch that was not asked for is dropped when a third one is announced.
        """
        positions = self._positions(index)
        for stale in list(self._ahead)[:-1]:
            del self._ahead[stale]
        if len(positions):
            job = self._job(positions, seed, epoch)
            self._ahead[_key(positions, seed, epoch)] = start(job)

    def subset(self, index: Tensor | Sequence[int] | slice) -> PhotoSet:
        """Return the images at ``index``, in that order."""
        positions = self._positions(index)
        return replace(self, labels=self.labels[positions], files=self.files[positions.numpy()])

    def read_all(self) -> PhotoSet:
        """Decode every image once and return the set.

        Raises:
            BadImage: If one cannot be decoded.
        """
        for first in range(0, len(self), _CHUNK):
            self.batch(slice(first, first + _CHUNK))
        return self

    def _job(self, positions: Tensor, seed: int = 0, epoch: int | None = None) -> Job:
        """Return the job of decoding images, for an epoch of training or else their centres."""
        files = tuple(self.files[positions.numpy()].tolist())
        if epoch is None or not self.drawn:
            return Job(os.fspath(self.root), files, self.size)
        streams = SampleStreams(key(seed, "view", epoch), positions)
        draws = streams.uniform((len(positions), DRAWS)).numpy()
        crop, flip = (name in self.drawn for name in WHILE_DECODING)
        return Job(os.fspath(self.root), files, self.size, crop, flip, draws)


def _key(positions: Tensor, seed: int, epoch: int) -> bytes:
    return f"{seed} {epoch} ".encode() + positions.numpy().tobytes()


def _scaled(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).to(torch.float32) / 255.0
