"""Choices: no event, or one of a polarity, for every candidate position of a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spikeguard.attacks.searches.restarts import rows

__all__ = ["Choices"]

_LEAST = 1.0  # logit of the clean choice at the start, where the budget allows most positions


@dataclass(frozen=True)
class Choices:
    """The candidate positions of a batch and their clean choices.

    Logits are [B, C + 1, T, H, W]: no event, then each polarity channel.

    Attributes:
        x: Clean binary grids [B, T, C, H, W].
        free: Whether a position is a candidate [B, T, 1, H, W].
    """

    x: Tensor
    free: Tensor

    @classmethod
    def around(cls, x: Tensor, reach: int) -> Choices:
        """Make the positions within ``reach`` of an event candidates.

        A position with events of both polarities is none of the choices; it stays as it is.
        """
        events = x.sum(2, keepdim=True)
        near = (events > 0).to(x.dtype).transpose(1, 2)
        near = functional.max_pool3d(near, 2 * reach + 1, stride=1, padding=reach)
        return cls(x, (near.transpose(1, 2) > 0) & (events <= 1))

    def start(self, changed: float) -> Tensor:
        """Return the logits at the start; a grid drawn by them has ``changed`` other choices.

        Of K positions with C + 1 choices and a logit b of the clean one, K C / (exp(b) + C) get
        another choice in the mean; so b = log(C (K / changed - 1)).
        """
        positions = self.free.flatten(1).sum(1).double()
        others = self.x.shape[2] * (positions / max(changed, 1) - 1)
        height = others.clamp_min(math.exp(_LEAST)).log().to(self.x.dtype)
        clean = torch.cat([1 - self.x.sum(2, keepdim=True), self.x], 2).clamp_min(0)
        return rows(height, clean) * clean.transpose(1, 2).contiguous()

    def likeliest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the grid of the likeliest other choices, and their probabilities per entry."""
        share = logits.softmax(1)
        clean = torch.cat([1 - self.x.sum(2, keepdim=True), self.x], 2).transpose(1, 2) > 0
        other = self.hard(torch.where(clean, -torch.inf, logits))
        chance = torch.where(clean, 0, share).amax(1, keepdim=True).transpose(1, 2)
        return other, chance * (other - self.x).abs()

    def soft(self, logits: Tensor) -> Tensor:
        """Return the shares of the polarities as a grid."""
        return torch.where(self.free, logits.softmax(1)[:, 1:].transpose(1, 2), self.x)

    def hard(self, logits: Tensor) -> Tensor:
        """Return the choice of largest logit as a grid."""
        chosen = functional.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1)
        grid = chosen[:, 1:].transpose(1, 2).to(self.x.dtype)
        return torch.where(self.free, grid, self.x)

    def take(self, at: Tensor) -> Choices:
        """Return the choices of some of the samples."""
        return Choices(self.x[at], self.free[at])
