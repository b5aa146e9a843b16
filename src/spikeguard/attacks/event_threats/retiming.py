"""Retiming: the threat set of events that keep their cell and polarity and change their bin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeguard.attacks.event_threats.base import EventThreat, require_budget
from spikeguard.attacks.event_threats.line_shifts import Limits, best_lines, event_bins
from spikeguard.rng import SampleStreams

__all__ = ["Retiming"]


@dataclass(frozen=True)
class Retiming(EventThreat):
    """Events move in time; each line, a cell with a polarity, keeps its number of events.

    The i-th event of a line is the i-th one afterwards: events of a line cannot be told apart, and
    this matching has the smallest largest shift and the smallest total. No bin of a sample may hold
    more events than the fullest bin of the clean sample, so a binary grid stays binary.

    Args:
        max_shift: Bins that an event may move, >= 0 (the source's B_inf); T - 1 sets no limit.
        total: Bins that all events of a sample may move together (B_1); None sets no limit.
        moved: Events of a sample that may move (B_0); None sets no limit.

    Raises:
        ValueError: If a limit is no whole number >= 0.

    Source: "Spike-retiming attacks", ICLR 2026 (arXiv:2602.03284).
    """

    max_shift: int
    total: int | None = None
    moved: int | None = None

    def __post_init__(self) -> None:
        require_budget(self, "max_shift", self.max_shift)
        for name, value in (("total", self.total), ("moved", self.moved)):
            if value is not None:
                require_budget(self, name, value)

    @property
    def norm(self) -> str:
        """The name of the set, with the limits beside that on each shift."""
        more = {"total": self.total, "moved": self.moved}
        words = [f"{name}={value}" for name, value in more.items() if value is not None]
        return " ".join(["retiming", *words])

    @property
    def eps(self) -> float:
        """The largest shift."""
        return float(self.max_shift)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the nearest grid of the set.

        Dynamic programming over the bins of each line, and over the lines of a sample where a total
        or the number of moved events is limited; exact.
        """
        lines, point = _lines(x), _lines(x_adv)
        held = lines.sum(2)
        count = int((held > 0).sum(1).max())
        if not count:
            return x.clone()
        order = (held > 0).byte().argsort(dim=1, descending=True, stable=True)[:, :count]
        at = order[:, :, None].expand(-1, -1, x.shape[1])
        limits = Limits(self.max_shift, self.total, self.moved)
        found = best_lines(lines.gather(1, at), point.gather(1, at).double(), limits)
        moved = lines.scatter(1, at, found.to(lines.dtype))
        return moved.transpose(1, 2).reshape(x.shape)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Return the grid of the set that is nearest to uniform noise."""
        return self.project(streams.uniform(x.shape, device=x.device).to(x.dtype), x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the largest shift of an event [B]; infinite where events appear or vanish."""
        return torch.where(_same_lines(x_adv, x).all(1), self._shifts(x_adv, x)[0], torch.inf)

    def _shifts(self, x_adv: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each sample's largest shift, total shift and number of moved events."""
        before, after = _lines(x), _lines(x_adv)
        many = int(torch.maximum(before.sum(2), after.sum(2)).max())
        if not many:
            none = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            return none, none, none
        first, second = event_bins(before, many), event_bins(after, many)
        both = (first < before.shape[2]) & (second < before.shape[2])
        shift = torch.where(both, (first - second).abs(), 0).flatten(1).double()
        return shift.amax(1), shift.sum(1), (shift > 0).sum(1).double()

    def violation(self, x_adv: Tensor, x: Tensor) -> str | None:
        """Describe what a batch of whole numbers violates; None if nothing."""
        same = _same_lines(x_adv, x)
        if not bool(same.all()):
            row = int((~same).any(1).nonzero()[0, 0])
            return (
                f"changes the number of events on {int((~same[row]).sum())} lines of sample {row}; "
                "retiming keeps it"
            )
        fullest = x.flatten(1).amax(1).clamp_min(1)
        crowded = x_adv.flatten(1).amax(1) > fullest
        if bool(crowded.any()):
            row = int(crowded.nonzero()[0, 0])
            return (
                f"holds the invalid value {float(x_adv[row].max()):g} in sample {row}: no bin may "
                f"hold more than {int(fullest[row])} events"
            )
        names = ("moves an event by {} bins", "moves events by {} bins in all", "moves {} events")
        budgets = (self.max_shift, self.total, self.moved)
        for used, budget, text in zip(self._shifts(x_adv, x), budgets, names, strict=True):
            if budget is not None and bool((used > budget).any()):
                row = int(used.argmax())
                most = f", more than the budget {budget}"
                return f"{text.format(int(used.max()))} in sample {row}{most}"
        return None


def _lines(x: Tensor) -> Tensor:
    """Return a grid [B, T, ...] as lines over time [B, lines, T]."""
    if x.ndim < 3:
        raise ValueError(f"Retiming: inputs are [B, T, C, H, W], got shape {list(x.shape)}.")
    return x.flatten(2).transpose(1, 2)


def _same_lines(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return whether each line keeps its number of events [B, lines]."""
    return _lines(x_adv).sum(2) == _lines(x).sum(2)
