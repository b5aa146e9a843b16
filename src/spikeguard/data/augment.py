"""Augmentation of training batches: crop, flip and cutout, drawn for each sample.

An augmentation is called with images [B, C, H, W] or event frames [B, T, C, H, W] and a generator,
and returns new ones. All frames of a recording are cropped and flipped in the same way. The draws
depend on the generator alone, so a resumed run gets the same images, on any device.

An augmentation with a true ``by_row`` draws for each sample by ``spikeguard.rng``, so a process
that has only a part of a batch needs only that part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from spikeguard.data.augment_events import EventDrop, TimeJitter
from spikeguard.data.names import unknown_name
from spikeguard.rng import integers

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Compose",
    "Cutout",
    "HorizontalFlip",
    "RandomCrop",
    "augmentation_named",
]

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class RandomCrop:
    """Pad with black and crop to the original size at a random position.

    Args:
        padding: Pixels added on every side, >= 1; each offset is uniform on 0 .. 2 * padding.

    Raises:
        ValueError: If ``padding`` is below 1.
    """

    by_row: ClassVar[bool] = True

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise ValueError(f"RandomCrop: padding is at least 1 pixel, got {self.padding}.")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return shifted images or frames shaped like ``x``."""
        images = x.flatten(1, -3)
        batch, channels, height, width = images.shape
        top = integers(generator, 2 * self.padding + 1, batch, device=x.device)
        left = integers(generator, 2 * self.padding + 1, batch, device=x.device)
        padded = functional.pad(images, [self.padding] * 4)
        rows = top[:, None] + torch.arange(height, device=x.device)
        columns = left[:, None] + torch.arange(width, device=x.device)
        rows = rows[:, None, :, None].expand(batch, channels, height, padded.shape[3])
        columns = columns[:, None, None, :].expand(batch, channels, height, width)
        return padded.gather(2, rows).gather(3, columns).view(x.shape)


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror each image left to right with probability one half."""

    by_row: ClassVar[bool] = True

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return images or frames shaped like ``x``."""
        flip = integers(generator, 2, len(x), device=x.device).bool()
        return torch.where(flip.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


@dataclass(frozen=True)
class Cutout:
    """Set one square of each image to black; its centre is any pixel, so the border may clip it.

    Applied in pixel space: the square is 0 before normalisation, and an attack may perturb it.

    Args:
        size: Side of the square in pixels, >= 1 and at most the shorter side of the image.

    Raises:
        ValueError: If ``size`` is below 1 or above the image.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with
        cutout", 2017, arXiv:1708.04552.
    """

    by_row: ClassVar[bool] = True

    size: int = 16

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"Cutout: size is at least 1 pixel, got {self.size}.")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return images or frames shaped like ``x``."""
        batch, height, width = len(x), *x.shape[-2:]
        if self.size > min(height, width):
            raise ValueError(
                f"Cutout: a hole of {self.size} pixels erases an image of {height} x {width}; "
                f"use a size of at most {min(height, width) // 2}."
            )
        top = integers(generator, height, batch, device=x.device) - self.size // 2
        left = integers(generator, width, batch, device=x.device) - self.size // 2
        rows = _inside(top, self.size, height)[:, None, :, None]
        columns = _inside(left, self.size, width)[:, None, None, :]
        return x.flatten(1, -3).masked_fill(rows & columns, 0.0).view(x.shape)


@dataclass(frozen=True)
class Compose:
    """Apply augmentations in order, all with the same generator."""

    parts: tuple[Augmentation, ...]

    @property
    def by_row(self) -> bool:
        """Whether all parts draw for each sample."""
        return all(getattr(part, "by_row", False) for part in self.parts)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return images or frames shaped like ``x``."""
        for part in self.parts:
            x = part(x, generator)
        return x


AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {
    "crop": RandomCrop,
    "flip": HorizontalFlip,
    "cutout": Cutout,
    "event_drop": EventDrop,
    "time_jitter": TimeJitter,
}


def augmentation_named(names: Sequence[str]) -> Compose | None:
    """Return augmentations by name, applied in this order; None for no names.

    Raises:
        ValueError: If a name is not in ``AUGMENTATIONS``.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
    return Compose(tuple(AUGMENTATIONS[name]() for name in names)) if names else None


def _inside(start: Tensor, size: int, length: int) -> Tensor:
    """Return [B, length]: whether a position is in start .. start + size - 1."""
    position = torch.arange(length, device=start.device)
    return (position >= start[:, None]) & (position < start[:, None] + size)
