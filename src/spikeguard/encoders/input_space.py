"""InputSpace: the values that an input of a network may have, and whether it has a time axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["PIXELS", "InputSpace", "require_same_kind", "space_of"]


@dataclass(frozen=True)
class InputSpace:
    """The values of an input, lowest 0, and its axes.

    Args:
        high: Largest value, > 0; ``math.inf`` for counts without a bound.
        whole: Only integers: 0 and 1 where ``high`` is 1.
        temporal: Inputs are frames [B, T, C, H, W]; otherwise images [B, C, H, W] or flat [B, F].
        exclusive: At most one channel of a cell (t, h, w) is above 0; needs ``temporal``.

    Raises:
        ValueError: If ``high`` is not above 0, or ``exclusive`` is set without ``temporal``.

    Example:
        >>> InputSpace(high=1.0, whole=True, temporal=True)
        InputSpace(high=1.0, whole=True, temporal=True, exclusive=False)
        >>> str(InputSpace(high=math.inf, whole=True, temporal=True)), str(PIXELS)
        ('frames [B, T, C, H, W] of integers >= 0', 'images in [0, 1]')
    """

    high: float = 1.0
    whole: bool = False
    temporal: bool = False
    exclusive: bool = False

    def __post_init__(self) -> None:
        if not self.high > 0:
            raise ValueError(f"InputSpace: high is the largest value, > 0, got {self.high:g}.")
        if self.exclusive and not self.temporal:
            raise ValueError("InputSpace: exclusive polarity needs temporal=True.")

    def __str__(self) -> str:
        what = "frames [B, T, C, H, W]" if self.temporal else "images"
        if not self.whole:
            return f"{what} in {self.box}"
        return f"{what} of {_integers(self.high)}"

    @property
    def box(self) -> str:
        """The range of the values: "[0, 1]", or "[0, inf)"."""
        return "[0, inf)" if math.isinf(self.high) else f"[0, {self.high:g}]"

    def clamp(self, x: Tensor) -> Tensor:
        """Clip values to [0, ``high``]."""
        return x.clamp(0, self.high)

    def check(self, x: Tensor, where: str = "input") -> None:
        """Check a batch of inputs.

        Args:
            x: Inputs [B, ...].
            where: Start of the message.

        Raises:
            ValueError: If x is not floating point, holds NaN, or is not in this space.
        """
        if self.temporal and x.ndim != 5:
            raise ValueError(
                f"{where}: inputs are frames [B, T, C, H, W] and not empty, got shape "
                f"{list(x.shape)}; images are for a network without event frames."
            )
        if x.ndim < 2 or not x.numel():
            raise ValueError(
                f"{where}: inputs are [B, ...] and not empty, got shape {list(x.shape)}."
            )
        if not x.is_floating_point():
            remedy = "x / 255" if self == PIXELS else "x.float()"
            raise ValueError(
                f"{where}: inputs must be floating point in {self.box}, got {x.dtype}; "
                f"use {remedy}."
            )
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{where}: inputs hold NaN or infinity; clean the data first.")
        x = x.detach()
        low, high = (float(value) for value in x.aminmax())
        if low < 0 or high > self.high:
            remedy = (
                "this network takes frames, not event counts above that"
                if self.temporal
                else "normalise inside the model, not before it"
            )
            raise ValueError(
                f"{where}: inputs must be in {self.box}, got {low:.4g} to {high:.4g}; {remedy}."
            )
        if self.whole and not bool((x == x.round()).all()):
            value = float(x[x != x.round()][0])
            raise ValueError(
                f"{where}: inputs are {_integers(self.high)}, got {value:.4g}; frames are not "
                "rescaled."
            )
        if self.exclusive and bool(((x > 0).sum(2) > 1).any()):
            raise ValueError(
                f"{where}: one polarity per cell, got a cell with events of both; frames with both "
                "need exclusive=False."
            )


PIXELS = InputSpace()


def space_of(model: nn.Module) -> InputSpace:
    """Return the inputs that a network takes: its ``input_space``, or ``PIXELS`` without one."""
    space = getattr(model, "input_space", None)
    return space if isinstance(space, InputSpace) else PIXELS


def require_same_kind(space: InputSpace, data: InputSpace, where: str) -> None:
    """Reject frames that are shown to a network for images, images to one for frames, and counts.

    Args:
        space: What the network takes, from :func:`space_of`.
        data: What the data are.
        where: Start of the message.

    Raises:
        ValueError: If the data have other axes, or may have larger values than the network takes.
    """
    if data.temporal != space.temporal:
        remedy = (
            "train a network with model.encoder: event_frames, or state the space of the model"
            if data.temporal
            else "show it event frames of its T"
        )
        raise ValueError(f"{where}: the network takes {space}, the data are {data}; {remedy}.")
    if data.high > space.high:
        raise ValueError(
            f"{where}: the network takes values in {space.box}, the data lie in {data.box}; "
            "use the frames that it was trained on."
        )


def _integers(high: float) -> str:
    if math.isinf(high):
        return "integers >= 0"
    return "zeros and ones" if high == 1 else f"integers in [0, {high:g}]"
