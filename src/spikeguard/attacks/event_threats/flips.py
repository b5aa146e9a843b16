"""Flips: the threat set of binary grids in which a number of cells change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeguard.attacks.event_threats.base import Budgeted, binary_violation, largest
from spikeguard.rng import SampleStreams

__all__ = ["Flips"]


@dataclass(frozen=True)
class Flips(Budgeted):
    """At most ``budget`` entries of a binary grid change from 0 to 1 or from 1 to 0.

    Args:
        budget: Largest number of changed entries of a sample, >= 0.

    Raises:
        ValueError: If the budget is no whole number >= 0.
    """

    norm = "flips"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the nearest binary grid with at most ``budget`` flips.

        A flip brings the grid nearer by 2 d - 1, where d is how far the point is from x towards the
        flipped value. The largest positive ones are taken; ties go to the first entry.
        """
        toward = 1 - 2 * x.double()
        gain = 2 * (x_adv.double() - x.double()) * toward - 1
        flipped = largest(gain.flatten(1), self.budget).view_as(x)
        return torch.where(flipped, 1 - x, x)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Flip ``budget`` entries, drawn uniformly without replacement."""
        u = 1 - streams.uniform(x.shape, device=x.device).flatten(1)
        return torch.where(largest(u, self.budget).view_as(x), 1 - x, x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the number of changed entries [B]."""
        return (x_adv != x).flatten(1).sum(1).double()

    def violation(self, x_adv: Tensor, x: Tensor) -> str | None:
        """Describe what a batch of whole numbers violates; None if nothing."""
        return binary_violation(x_adv) or super().violation(x_adv, x)
