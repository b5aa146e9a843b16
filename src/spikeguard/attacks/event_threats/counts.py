"""Counts: the threat set of event counts, whole numbers >= 0, that change by a total."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeguard.attacks.event_threats.base import Budgeted, largest
from spikeguard.rng import SampleStreams

__all__ = ["Counts"]


@dataclass(frozen=True)
class Counts(Budgeted):
    """Events are inserted and deleted in a grid of counts, at most ``budget`` in a sample.

    Args:
        budget: Largest sum of the absolute changes of a sample, >= 0.

    Raises:
        ValueError: If the budget is no whole number >= 0.
    """

    norm = "counts"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the nearest grid of counts whose changes sum to at most ``budget``.

        The j-th event inserted in an entry (or deleted from it) brings the grid nearer by
        2 (d - j) + 1, where d is the distance from x to the point; this falls with j, so the
        largest positive gains are the best choice. Each entry has at most one gain in an interval
        (2 m, 2 m + 2]: all events above the last interval are taken, and the best inside it.
        """
        start = x.double().flatten(1)
        delta = x_adv.double().flatten(1) - start
        away = delta.abs()
        most = torch.ceil(away - 0.5).clamp_min(0)  # further events would not bring it nearer
        most = torch.where(delta < 0, most.minimum(start), most)

        def events(level: Tensor) -> Tensor:
            """Return how many events of each entry have a gain above 2 * level."""
            return torch.ceil(away - 0.5 - level[:, None]).clamp_min(0).minimum(most)

        low = torch.full_like(away[:, 0], -1.0)
        high = torch.ceil(away.amax(1)) + 1
        for _ in range(64):  # bisection on whole numbers: low takes too many, high does not
            if bool((high - low <= 1).all()):
                break
            middle = torch.floor((low + high) / 2)
            fits = events(middle).sum(1) <= self.budget
            high, low = torch.where(fits, middle, high), torch.where(fits, low, middle)
        taken = events(high)
        rest = (self.budget - taken.sum(1)).long()
        further = events((high - 1).clamp_min(0)) > taken
        gain = torch.where(further, 2 * (away - taken - 1) + 1 - 2 * (high - 1)[:, None], 0)
        taken += largest(gain, rest)
        return (start + taken * delta.sign()).view_as(x).to(x.dtype)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Insert or delete an event in ``budget`` entries drawn at random; empty ones get one."""
        u = streams.uniform((2, *x.shape), dim=1, device=x.device).flatten(2)
        chosen = largest(1 - u[0], self.budget).view_as(x)
        up = (u[1].view_as(x) < 0.5) | (x == 0)
        return x + chosen * torch.where(up, 1, -1).to(x.dtype)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the sum of the absolute changes [B]."""
        return (x_adv.double() - x.double()).abs().flatten(1).sum(1)
