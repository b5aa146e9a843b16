"""Labelled images or event frames in memory, and the splits of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeguard.data.augment import Augmentation
from spikeguard.data.conversion import (
    as_labels,
    as_tensor,
    check_frames,
    check_labels,
    check_pixels,
    frames_space,
)
from spikeguard.encoders.input_space import PIXELS, InputSpace
from spikeguard.storage.digests import content_digest

__all__ = [
    "Data",
    "ImageSet",
    "Splits",
    "as_image_set",
    "content",
    "require_validation",
]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images, kept as stored and scaled to [0, 1] batch by batch; or event frames.

    Args:
        images: [N, C, H, W], or flat [N, F], uint8 or float, values in [0, ``peak``]. With a
            temporal ``space``, frames [N, T, C, H, W] of any number type, values in that space.
        labels: [N], any integer type, kept as int64; values in 0 .. ``num_classes`` - 1.
        num_classes: Number of classes, >= 1.
        name: Name of the set in messages and results.
        peak: The stored value that represents 1.0, > 0. Frames are stored in their true range,
            and their peak is 1.
        classes: Names of the classes, one for each, or empty.
        space: The values that an input may have, and whether it has a time axis.

    Raises:
        ValueError: If shapes, types, values, labels or class names are not as above.

    Example:
        >>> data = ImageSet(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 1]), 2, "dark", peak=1.0)
        >>> x, y = data.batch([2, 0])
        >>> tuple(x.shape), y.tolist()
        ((2, 1, 8, 8), [1, 0])
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    name: str
    peak: float = 255.0
    classes: tuple[str, ...] = ()
    space: InputSpace = PIXELS

    def __post_init__(self) -> None:
        where = f"ImageSet {self.name!r}"
        object.__setattr__(self, "labels", as_labels(self.labels, where))
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        if self.space.temporal:
            object.__setattr__(self, "peak", 1.0)
            check_frames(where, self.images, self.space)
        else:
            check_pixels(where, self.images, self.peak)
        check_labels(where, self.labels, len(self.images), self.num_classes)
        self._check_classes(where)

    def _check_classes(self, where: str) -> None:
        if self.classes and len(self.classes) != self.num_classes:
            raise ValueError(
                f"{where}: {self.num_classes} classes but {len(self.classes)} class names."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image or frame."""
        if self.images.ndim not in (4, 5):
            raise ValueError(
                f"{self.name}: its inputs are flat vectors, not images; reshape them to "
                "[N, C, H, W]."
            )
        channels, height, width = self.images.shape[-3:]
        return channels, height, width

    @property
    def digest(self) -> str:
        """SHA-256 of pixels, labels and ``peak`` in hexadecimal; names are not part of it.

        That of frames covers their ``space`` too.
        """
        return content_digest(*content(self))

    @property
    def content_digest(self) -> str:
        """SHA-256 of what results depend on: ``digest``, and of image files on disk their bytes."""
        return self.digest

    def describe(self) -> dict[str, Any]:
        """Return digest, number, shape and class names of the images as plain data."""
        found = {"images": self.digest, "count": len(self), "shape": list(self.images.shape[1:])}
        return {**found, "classes": list(self.classes)} if self.classes else found

    def batch(self, index: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Return x float32 [B, C, H, W] in [0, 1] and y int64 [B], as copies.

        Frames are [B, T, C, H, W] in their true range.
        """
        index = _positions(index, self.images.device)
        x = self.images[index].to(torch.float32) / self.peak
        return x, self.labels[index].clone()

    def training_batch(
        self, index: Tensor | Sequence[int] | slice, *, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Return the batch to train on; one that is decoded from files may vary with the epoch."""
        return self.batch(index)

    def read_ahead(self, index: Tensor | Sequence[int] | slice, *, seed: int, epoch: int) -> None:
        """Learn which ``training_batch`` comes next; a set that reads files starts to read it."""

    def subset(self, index: Tensor | Sequence[int] | slice) -> ImageSet:
        """Return the images at ``index``, in that order."""
        index = _positions(index, self.images.device)
        return replace(self, images=self.images[index], labels=self.labels[index])


def content(images: ImageSet, samples: int | None = None) -> tuple[Tensor | bytes, ...]:
    """Return what a digest of the first ``samples`` inputs covers; None is all of them."""
    held = getattr(images, "images", None)  # inputs that are read from disk are not held
    if held is None:
        part = images if samples is None else images.subset(slice(samples))
        return (part.content_digest.encode(),)
    parts = (held[:samples], images.labels[:samples], repr(images.peak).encode())
    return parts if images.space == PIXELS else (*parts, repr(images.space).encode())


Array = Tensor | NDArray[Any]
Data = ImageSet | tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set ready for training: three disjoint parts and how to normalise and augment.

    Args:
        train: Images that the weights are fitted to.
        val: Images cut from the training files, to choose the best epoch; None without them.
        test: The official test images, for the final numbers only.
        mean: Per-channel mean that the model subtracts, in [0, 1] units.
        std: Per-channel standard deviation that the model divides by, in [0, 1] units, > 0.
        augment: Applied to every training batch before it is attacked, or None.

    Raises:
        ValueError: If the parts differ in image shape or number of classes, if ``mean`` or
            ``std`` does not fit the channels, or if ``augment`` does not fit the images.
    """

    train: ImageSet
    val: ImageSet | None
    test: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augmentation | None = None

    def __post_init__(self) -> None:
        for part in filter(None, (self.val, self.test)):
            if (part.shape, part.num_classes) != (self.train.shape, self.train.num_classes):
                raise ValueError(
                    f"Splits: train has images {self.train.shape} in {self.train.num_classes} "
                    f"classes, but {part.name} has {part.shape} in {part.num_classes}."
                )
            if part.space != self.train.space:
                raise ValueError(
                    f"Splits: train holds {self.train.space}, but {part.name} {part.space}."
                )
            if part.space.temporal:
                steps = [each.batch(slice(1))[0].shape[1] for each in (self.train, part)]
                if steps[0] != steps[1]:
                    raise ValueError(
                        f"Splits: train has {steps[0]} frames per recording, but {part.name} has "
                        f"{steps[1]}."
                    )
            if part.classes != self.train.classes:
                raise ValueError(f"Splits: {part.name} names the classes otherwise than train.")
        channels = self.train.shape[0]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise ValueError(
                f"Splits: mean and std > 0 are one number a channel ({channels}), got "
                f"mean={self.mean}, std={self.std}."
            )
        if self.augment is not None:  # a crop or a hole that does not fit fails here, not later
            self.augment(self.train.batch([0])[0], torch.Generator().manual_seed(0))

    def validation(self, purpose: str) -> ImageSet:
        """Return the validation images.

        Args:
            purpose: What needs them, for the message.

        Raises:
            ValueError: If there are none.
        """
        return require_validation(self.val, purpose, "there are none; set data.val_fraction")


def require_validation(val: ImageSet | None, purpose: str, otherwise: str) -> ImageSet:
    """Return validation images.

    Args:
        val: The images, or None.
        purpose: What needs them, for the message.
        otherwise: Where they are missing and what to do, for the message.

    Raises:
        ValueError: If there are none.
    """
    if val is None:
        raise ValueError(f"{purpose} needs validation images, and {otherwise}.")
    return val


def as_image_set(
    data: Data,
    *,
    num_classes: int | None = None,
    name: str = "pair",
    classes: Sequence[str] = (),
    space: InputSpace | None = None,
) -> ImageSet:
    """Return ``data`` as an ImageSet; a pair ``(x, y)`` is checked and wrapped.

    Args:
        data: An ImageSet, which is returned unchanged, or a pair: x [N, C, H, W] or [N, F], uint8
            in 0 .. 255 or float in [0, 1], or event frames [N, T, C, H, W] of any number type, and
            y [N] of any integer type; tensors or NumPy arrays.
        num_classes: For a pair; default the number of class names, else the largest label + 1.
        name: For a pair; its name in messages.
        classes: For a pair; the names of the classes.
        space: For a pair of frames; the values they may have. Default: 0 and 1, whole numbers
            >= 0 or real numbers in [0, 1], whichever fits all values.

    Raises:
        ValueError: If ``data`` is something else, or the pair is not as above.
    """
    if isinstance(data, ImageSet):
        return data
    if not (
        isinstance(data, tuple | list)
        and len(data) == 2
        and all(isinstance(part, Tensor | np.ndarray) for part in data)
    ):
        given: object = data
        remedy = "sg.data.from_arrays, from_folder and from_dataset make an ImageSet"
        if isinstance(given, Splits):
            remedy = "pass one part, such as data.test"
        raise ValueError(
            f"data is an ImageSet or a pair (x, y) of tensors or arrays, got "
            f"{type(data).__name__}; {remedy}."
        )
    where = "data" if name == "pair" else name
    x, y = as_tensor(data[0], f"{where}: images"), as_labels(data[1], where)
    if space is None:
        space = frames_space(x, where) if x.ndim == 5 else PIXELS
    if x.dtype == torch.bool and space.temporal:
        x = x.to(torch.uint8)
    if not space.temporal and x.dtype == torch.uint8 and x.numel() and int(x.max()) == 1:
        raise ValueError(
            f"{where}: uint8 pixels are 0 .. 255, got 0 .. 1; if 1 is white, "
            "write x.astype('float32'), of a tensor x.float()."
        )
    if num_classes is None:
        num_classes = len(classes) or (max(int(y.max()) + 1, 1) if y.numel() else 1)
    peak = 255.0 if x.dtype == torch.uint8 else 1.0
    return ImageSet(x, y, num_classes, name, peak, tuple(classes), space)


def _positions(index: Tensor | Sequence[int] | slice, device: torch.device) -> Tensor | slice:
    """Turn an index into one that keeps the sample axis."""
    if isinstance(index, slice):
        return index
    positions = torch.as_tensor(index, device=device)
    if positions.ndim != 1:
        raise ValueError(f"ImageSet: an index is a slice or a list of positions, got {index!r}.")
    return positions
