"""Decode image files to one size: a random part and mirror in training, else the centre.

Everything random comes in as numbers, so that any process gives the same pixels.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeguard.data.folders import opaque, pillow

__all__ = ["DRAWS", "BadImage", "Job", "centre_box", "decode", "random_box"]

_ATTEMPTS = 10
DRAWS = 4 * _ATTEMPTS + 1  # numbers that the random part and the mirror of one image may need
_AREA = (0.08, 1.0)  # share of the image
_RATIO = (3 / 4, 4 / 3)  # width : height
_KEPT = 224 / 256  # share of the shorter side that the centre has
Box = tuple[float, float, float, float]  # left, top, right, bottom


class BadImage(ValueError):
    """An image file cannot be decoded; the message is one line and names the file."""


@dataclass(frozen=True)
class Job:
    """Image files to decode.

    Args:
        root: Folder of the files.
        files: Their paths inside it, as ``os.fsencode`` returns them.
        size: Height and width of the result in pixels, >= 1.
        resized_crop: Take a random part, see ``random_box``; else the centre.
        flip: Mirror left to right with probability one half.
        draws: Random numbers in [0, 1), [B, DRAWS]; needed for either.
    """

    root: str
    files: tuple[bytes, ...]
    size: int
    resized_crop: bool = False
    flip: bool = False
    draws: NDArray[np.float32] | None = None

    def parts(self, count: int) -> list[Job]:
        """Return at most ``count`` jobs that together are this one, in order."""
        edges = np.linspace(0, len(self.files), min(count, len(self.files)) + 1).astype(int)
        return [
            Job(
                self.root,
                self.files[start:stop],
                self.size,
                self.resized_crop,
                self.flip,
                None if self.draws is None else self.draws[start:stop],
            )
            for start, stop in pairwise(edges)
        ]


def decode(job: Job) -> NDArray[np.uint8]:
    """Return the images of a job as uint8 [B, 3, size, size].

    Every image becomes RGB: grey ones get three equal channels, an opaque alpha channel is dropped.
    The part is resized with a triangle filter that covers all its pixels (Pillow's BILINEAR).

    Raises:
        BadImage: If a file cannot be decoded, or has transparent pixels or more than 8 bits.
    """
    images = np.empty((len(job.files), 3, job.size, job.size), np.uint8)
    for place, file in enumerate(job.files):
        path = Path(job.root) / os.fsdecode(file)
        drawn = None if job.draws is None else job.draws[place].astype(np.float64)
        images[place] = _decode(path, job, drawn).transpose(2, 0, 1)
    return images


def _decode(path: Path, job: Job, drawn: NDArray[np.float64] | None) -> NDArray[np.uint8]:
    library = pillow(path)
    try:
        with library.open(path) as image:
            image.load()
            try:
                flat = opaque(image, str(path))
            except ValueError as error:
                raise BadImage(str(error)) from error
            return np.asarray(_part(library, flat.convert("RGB"), job, drawn))
    except BadImage:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        line = str(error).partition("\n")[0]
        raise BadImage(
            f"{path}: not an image that Pillow can read ({line}); put an intact copy in its place "
            "and run the command again, a training with --resume."
        ) from error


def _part(library: Any, image: Any, job: Job, drawn: NDArray[np.float64] | None) -> Any:
    size, (width, height) = (job.size, job.size), image.size
    if job.resized_crop:
        assert drawn is not None
        cut = image.crop(random_box(width, height, drawn))
        found = cut.resize(size, library.Resampling.BILINEAR)
    else:
        box = centre_box(width, height, job.size)
        found = image.resize(size, library.Resampling.BILINEAR, box=box)
    if job.flip:
        assert drawn is not None
        if drawn[-1] < 0.5:
            return found.transpose(library.Transpose.FLIP_LEFT_RIGHT)
    return found


def centre_box(width: int, height: int, size: int) -> Box:
    """Return the square that is evaluated: the centre, 7/8 of the shorter side.

    It is what remains if the shorter side is resized to ``round(size * 8 / 7)`` pixels and the
    centre of ``size`` is cut out: 256 and 224, or 73 and 64.
    """
    side = min(width, height) * size / max(size, round(size / _KEPT))
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def random_box(width: int, height: int, drawn: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Return a random part of an image, in whole pixels.

    Its share of the area is uniform in [0.08, 1], the logarithm of width : height uniform between
    those of 3/4 and 4/3, its position uniform. A part that does not fit is drawn again; after ten
    attempts it is the largest centred one with a ratio in that range.

    Args:
        width: Of the image, in pixels, >= 1.
        height: Of the image.
        drawn: Uniform numbers in [0, 1), four for each attempt.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015 (arXiv:1409.4842),
        on its training, as torchvision's reference uses it.
    """
    low, high = (math.log(ratio) for ratio in _RATIO)
    for attempt in range(_ATTEMPTS):
        share, shape, across, down = drawn[4 * attempt : 4 * attempt + 4]
        area = width * height * (_AREA[0] + (_AREA[1] - _AREA[0]) * share)
        ratio = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * _RATIO[1])))
    h = min(height, max(1, round(width / _RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
