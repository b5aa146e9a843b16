"""Augmentation of event frames [B, T, C, H, W]: events are dropped or moved by one time step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spikeguard.rng import uniform

__all__ = ["EventDrop", "TimeJitter"]


@dataclass(frozen=True)
class EventDrop:
    """Remove each event with probability ``p``, independently.

    A cell with n events keeps a binomial number of them; a value that is not whole is kept or
    becomes 0.

    Args:
        p: Probability, in [0, 1).

    Raises:
        ValueError: If p is out of range; at a call, if x has no time axis.

    Source: Gu et al., "EventDrop: data augmentation for event-based learning", IJCAI 2021
        (arXiv:2106.05836), random drop.
    """

    p: float = 0.1

    def __post_init__(self) -> None:
        _require_probability("EventDrop", self.p)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return frames shaped like ``x`` [B, T, C, H, W]."""
        _require_frames("EventDrop", x)
        full = x > 0
        values = x[full].to(generator.device)
        whole = values == values.round()
        tries = torch.where(whole, values, torch.ones_like(values)).float()
        kept = torch.binomial(tries, torch.full_like(tries, 1 - self.p), generator).to(x.dtype)
        found = x.clone()
        found[full] = torch.where(whole, kept, values * kept).to(x.device)
        return found


@dataclass(frozen=True)
class TimeJitter:
    """Move the events of a pixel in a frame to the frame before or after, with probability ``p``.

    They move together, keep their polarity, and move only where the pixel has no event in that
    frame. So no event is lost, and the values stay in the space of the data.

    Args:
        p: Probability that the events of a pixel in a frame try to move, in [0, 1).

    Raises:
        ValueError: If p is out of range; at a call, if x has no time axis.
    """

    by_row: ClassVar[bool] = True

    p: float = 0.1

    def __post_init__(self) -> None:
        _require_probability("TimeJitter", self.p)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return frames shaped like ``x`` [B, T, C, H, W]."""
        _require_frames("TimeJitter", x)
        full = (x > 0).any(2)  # [B, T, H, W]
        drawn = uniform(generator, full.shape, dim=0, device=x.device)
        later = full & (drawn < self.p / 2)
        later[:, :-1] &= ~full[:, 1:]
        later[:, -1] = False
        into = torch.zeros_like(full)  # frames that receive events from the frame before
        into[:, 1:] = later[:, :-1]
        earlier = full & (drawn >= 1 - self.p / 2)
        earlier[:, 1:] &= ~full[:, :-1] & ~into[:, :-1]
        earlier[:, 0] = False
        found = x * ~(later | earlier)[:, :, None]
        found[:, 1:] += x[:, :-1] * later[:, :-1, None]
        found[:, :-1] += x[:, 1:] * earlier[:, 1:, None]
        return found


def _require_probability(name: str, p: float) -> None:
    if not 0 <= p < 1:
        raise ValueError(f"{name}: p is a probability in [0, 1), got {p:g}.")


def _require_frames(name: str, x: Tensor) -> None:
    if x.ndim != 5:
        raise ValueError(
            f"{name}: is for event frames [B, T, C, H, W], got {list(x.shape)}; leave it out for "
            "images."
        )
