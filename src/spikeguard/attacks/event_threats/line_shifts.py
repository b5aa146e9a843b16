"""The best shifts of events along their lines: exact dynamic programming for ``Retiming``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Limits", "best_lines", "event_bins"]


class Limits(NamedTuple):
    """Limits of a sample: the largest shift, the total shift, the number of moved events."""

    max_shift: int
    total: int | None
    moved: int | None


def event_bins(lines: Tensor, count: int) -> Tensor:
    """Return the bins of the first ``count`` events of each line, in order; T where there is none.

    Args:
        lines: Numbers of events [..., T].
        count: Number of events.
    """
    until = lines.cumsum(-1)
    ranks = torch.arange(count, device=lines.device)
    return (until[..., None] <= ranks).sum(-2)


def best_lines(lines: Tensor, point: Tensor, limits: Limits) -> Tensor:
    """Return the lines of the set that are nearest to a point, in each sample.

    Args:
        lines: Numbers of events of the clean input [B, L, T].
        point: The point [B, L, T], float64.
        limits: Limits on the shifts.
    """
    batch, count, bins = lines.shape
    table = _LineTable(lines.reshape(-1, bins), _capacity(lines), point.reshape(-1, bins), limits)
    values = table.values.view(batch, count, *table.values.shape[1:])
    if limits.total is None and limits.moved is None:
        spent = torch.zeros(2, batch * count, dtype=torch.int64, device=lines.device)
    else:
        spent = _shared(values, limits).reshape(2, -1)
    return table.lines(spent[0], spent[1]).view(batch, count, bins)


def _capacity(lines: Tensor) -> Tensor:
    """Return the most events that a bin of each line may hold [B L]."""
    most = lines.flatten(1).amax(1).clamp_min(1)
    return most[:, None].expand(lines.shape[:2]).reshape(-1).long()


class _LineTable:
    """For each line the best value by the shift and the moved events that it uses.

    The value of n events in a bin at which the point is z is 2 n z - n^2: by so much the squared
    distance falls. ``values`` is [lines, S + 1, M + 1]; S and M are 0 where there is no limit.
    """

    def __init__(self, lines: Tensor, capacity: Tensor, point: Tensor, limits: Limits):
        self.held = lines.sum(1).long()
        self.most, self.bins = int(self.held.max()), lines.shape[1]
        self.capacity, self.limits = capacity, limits
        self.events = event_bins(lines, self.most)
        self.events[torch.arange(self.most, device=lines.device) >= self.held[:, None]] = 10**6
        reach = self.most * min(limits.max_shift, self.bins - 1)
        sizes = [0 if b is None else min(b, most) for b, most in
                 ((limits.total, reach), (limits.moved, self.most))]  # fmt: skip
        shape = (len(lines), self.most + 1, sizes[0] + 1, sizes[1] + 1)
        best = torch.full(shape, -torch.inf, dtype=torch.float64, device=lines.device)
        best[:, 0, 0, 0] = 0
        self.picks = []
        for at in range(self.bins):
            best, pick = self._bin(best, at, point[:, at])
            self.picks.append(pick)
        every = torch.arange(len(lines), device=lines.device)
        self.values = best[every, self.held]

    def _bin(self, best: Tensor, at: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """Place 0, 1, ... events of each line in a bin."""
        after, pick = best.clone(), torch.zeros_like(best, dtype=torch.int16)
        shift, moved, far = self._sums(at)
        for number in range(1, min(self.most, int(self.capacity.max())) + 1):
            value = 2 * number * z - number**2
            for placed in range(self.most - number + 1):
                end = placed + number
                allowed = (far[:, end] == far[:, placed]) & (self.capacity >= number)
                if not bool(allowed.any()):
                    continue
                came = _moved_on(
                    best[:, placed],
                    shift[:, end] - shift[:, placed],
                    moved[:, end] - moved[:, placed],
                )
                came = torch.where(allowed[:, None, None], came + value[:, None, None], -torch.inf)
                better = came > after[:, end]
                after[:, end] = torch.where(better, came, after[:, end])
                pick[:, end] = torch.where(better, number, pick[:, end]).to(torch.int16)
        return after, pick

    def _sums(self, at: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return sums over the first events: shifts, moved events, and shifts that are too far."""
        away = (at - self.events).abs()
        shift = away if self.limits.total is not None else torch.zeros_like(away)
        moved = away > 0 if self.limits.moved is not None else torch.zeros_like(away)
        return (
            functional.pad(shift.cumsum(1), (1, 0)),
            functional.pad(moved.long().cumsum(1), (1, 0)),
            functional.pad((away > self.limits.max_shift).long().cumsum(1), (1, 0)),
        )

    def lines(self, shift: Tensor, moved: Tensor) -> Tensor:
        """Return the best lines that use these shifts and moved events [lines, T]."""
        every, left = torch.arange(len(self.held), device=shift.device), self.held.clone()
        found = torch.zeros(len(left), self.bins, dtype=torch.int64, device=shift.device)
        for at in reversed(range(self.bins)):
            number = self.picks[at][every, left, shift, moved].long()
            sums, before = self._sums(at), left - number
            shift = shift - (sums[0][every, left] - sums[0][every, before])
            moved = moved - (sums[1][every, left] - sums[1][every, before])
            found[:, at], left = number, before
        return found


def _moved_on(values: Tensor, shift: Tensor, moved: Tensor) -> Tensor:
    """Move a table [lines, S + 1, M + 1] by amounts per line; what enters is minus infinity."""
    for axis, by in ((1, shift), (2, moved)):
        size = values.shape[axis]
        if size == 1 and not bool((by != 0).any()):
            continue
        source = torch.arange(size, device=by.device) - by[:, None]
        index = source.clamp_min(0)
        wide = index[:, :, None] if axis == 1 else index[:, None, :]
        known = (source >= 0)[:, :, None] if axis == 1 else (source >= 0)[:, None, :]
        values = torch.where(known, values.gather(axis, wide.expand_as(values)), -torch.inf)
    return values


def _shared(values: Tensor, limits: Limits) -> Tensor:
    """Share the limits of a sample among its lines: shifts and moved events [2, B, L].

    Args:
        values: Best values [B, L, S + 1, M + 1].
        limits: Limits of a sample.
    """
    batch, count, shifts, moves = values.shape
    sizes = [1 if b is None else min(b, count * (own - 1)) + 1 for b, own in
             ((limits.total, shifts), (limits.moved, moves))]  # fmt: skip
    best = torch.full((batch, *sizes), -torch.inf, dtype=torch.float64, device=values.device)
    best[:, 0, 0] = 0
    picks = []
    for line in range(count):
        after = torch.full_like(best, -torch.inf)
        pick = torch.zeros_like(best, dtype=torch.int32)
        for s in range(min(shifts, sizes[0])):
            for m in range(min(moves, sizes[1])):
                came = torch.full_like(best, -torch.inf)
                own = values[:, line, s, m, None, None]
                came[:, s:, m:] = best[:, : sizes[0] - s, : sizes[1] - m] + own
                better = came > after
                after = torch.where(better, came, after)
                pick = torch.where(better, s * moves + m, pick)
        best = after
        picks.append(pick)
    flat = best.flatten(1).argmax(1)
    shift, moved = flat // sizes[1], flat % sizes[1]
    every = torch.arange(batch, device=values.device)
    found = torch.zeros(2, batch, count, dtype=torch.int64, device=values.device)
    for line in reversed(range(count)):
        chosen = picks[line][every, shift, moved].long()
        found[0, :, line], found[1, :, line] = chosen // moves, chosen % moves
        shift, moved = shift - found[0, :, line], moved - found[1, :, line]
    return found
