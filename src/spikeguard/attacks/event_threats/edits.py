"""Edits: the threat set of events inserted, deleted or changed in polarity, at a total cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeguard.attacks.event_threats.base import Budgeted, binary_violation, largest
from spikeguard.rng import SampleStreams

__all__ = ["Edits"]


@dataclass(frozen=True)
class Edits(Budgeted):
    """Events of a binary grid are inserted (cost 1), deleted (1) or change polarity (2).

    A cell is a position in one time bin. It holds an event of at most one polarity: no edit may
    give it a second one. A cell that holds both in the clean input may keep them.

    Args:
        budget: Largest total cost of a sample, >= 0.

    Raises:
        ValueError: If the budget is no whole number >= 0, or the inputs have more than two polarity
            channels.

    Source: the costs are those of Yao et al., "Exploring vulnerabilities in spiking neural
        networks: direct adversarial attacks on raw event data", ECCV 2024.
    """

    norm = "edits"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the nearest grid of the set.

        Most cells offer single edits, whose gains are sorted. In a cell with one event, changing
        its polarity can gain more than twice as much as deleting it: such a pair of edits is taken
        as a whole, except for at most one cell that is left with the deletion alone. All numbers of
        pairs are tried.
        """
        start, point = _cells(x.double()), _cells(x_adv.double())
        gain = 2 * (point - start) * (1 - 2 * start) - 1  # of changing one entry [B, C, n]
        if start.shape[1] == 1:
            return _flip(x, largest(gain.flatten(1), self.budget)[:, None])
        filled = start > 0
        count = filled.sum(1, keepdim=True)
        lone, empty = count == 1, count == 0
        better = torch.zeros_like(filled).scatter_(1, gain.argmax(1, keepdim=True), True)
        remove = torch.where(filled, gain, 0).sum(1)  # in a cell with one event
        insert = torch.where(filled, 0, gain).sum(1)
        pairs = lone[:, 0] & (insert > remove) & (remove + insert > 0)
        single = torch.where(empty & ~better, -1.0, gain)
        first = torch.where(lone & filled, gain, -1.0)  # in such a cell the deletion comes first
        second = torch.where(lone & ~filled & (remove > 0)[:, None], gain, -1.0)
        plain = torch.where(lone, torch.where(filled, first, second), single)
        closed = pairs[:, None] & lone
        plain = torch.where(closed, -1.0, plain)
        return _flip(x, self._choose(plain, filled, pairs, remove, insert))

    def _choose(
        self, plain: Tensor, filled: Tensor, pairs: Tensor, remove: Tensor, insert: Tensor
    ) -> Tensor:
        """Return the entries to change [B, 2, n]: the best mixture of single edits and pairs."""
        budget, rows = self.budget, len(plain)
        ordered = _deletions_first(plain, filled)
        units = _sums(ordered.sort(1, descending=True).values.clamp_min(0), budget)
        both = torch.where(pairs, remove + insert, -torch.inf)
        order = both.argsort(dim=1, descending=True, stable=True)
        ranked = both.gather(1, order)
        known = min(int(pairs.sum(1).amax()) if rows else 0, budget // 2 + 1)
        totals = _sums(torch.where(ranked > 0, ranked, 0), known)
        alone = torch.where(pairs, remove, -torch.inf).gather(1, order)
        added = torch.where(pairs, insert, torch.inf).gather(1, order)
        beyond, beyond_at = (each.flip(1) for each in alone.flip(1).cummax(1))
        beyond_at = alone.shape[1] - 1 - beyond_at
        least, least_at = added.cummin(1)
        best = units[:, budget].clone()
        taken, left = torch.zeros_like(best).long(), torch.full_like(best, -1).long()
        available = pairs.sum(1)
        for number in range(known + 1):
            enough = available >= number
            if 2 * number <= budget:
                value = totals[:, number] + units[:, budget - 2 * number]
                won = enough & (value > best)
                best = torch.where(won, value, best)
                taken, left = torch.where(won, number, taken), torch.where(won, -1, left)
            if 2 * number + 1 > budget:
                continue
            rest = units[:, budget - 2 * number - 1]
            if number < alone.shape[1]:  # the deletion alone, in a cell beyond the pairs taken
                value = totals[:, number] + beyond[:, number] + rest
                won = enough & (value > best)
                best = torch.where(won, value, best)
                taken = torch.where(won, number, taken)
                left = torch.where(won, beyond_at[:, number], left)
            if number < known:  # or in one of the best cells, and the next pair in its place
                value = totals[:, number + 1] - least[:, number] + rest
                won = (available > number) & (value > best)
                best = torch.where(won, value, best)
                taken = torch.where(won, number + 1, taken)
                left = torch.where(won, least_at[:, number], left)
        # ``taken`` pairs in order; the cell ``left`` loses its insertion, or joins with a deletion
        place = torch.arange(order.shape[1], device=plain.device)
        inside = place < taken[:, None]
        singled = place == left[:, None]
        delete = torch.zeros_like(pairs).scatter(1, order, inside | singled)
        insertion = torch.zeros_like(pairs).scatter(1, order, inside & ~singled)
        used = 2 * insertion.sum(1) + (delete & ~insertion).sum(1)
        chosen = largest(ordered, budget - used)
        change = _restored(chosen, filled)
        return change | (filled & delete[:, None]) | (~filled & insertion[:, None])

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Make ``budget`` single edits at random; an insertion only where the cell is empty."""
        u = 1 - _cells(streams.uniform(x.shape, device=x.device))
        start = _cells(x)
        if start.shape[1] == 2:
            empty = start.sum(1, keepdim=True) == 0
            worse = u <= u.flip(1)
            u = torch.where((start > 0) | (empty & ~worse), u, -1.0)
        return _flip(x, largest(u.flatten(1), self.budget).view_as(start))

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the total cost of the edits [B]."""
        return (x_adv != x).flatten(1).sum(1).double()

    def violation(self, x_adv: Tensor, x: Tensor) -> str | None:
        """Describe what a batch of whole numbers violates; None if nothing."""
        if _cells(x).shape[1] == 2:
            full = (_cells(x_adv) > 0).all(1) & ~(_cells(x) > 0).all(1)
            if bool(full.any()):
                row = int(full.flatten(1).any(1).nonzero()[0, 0])
                return f"has both polarities in {int(full[row].sum())} cells of sample {row}"
        return binary_violation(x_adv) or super().violation(x_adv, x)


def _cells(x: Tensor) -> Tensor:
    """Return a grid [B, T, C, H, W] as [B, C, cells]; C is 1 or 2."""
    if x.ndim != 5 or x.shape[2] not in (1, 2):
        raise ValueError(
            f"Edits: inputs are [B, T, C, H, W] with one or two polarity channels, got shape "
            f"{list(x.shape)}."
        )
    return x.transpose(1, 2).flatten(2)


def _flip(x: Tensor, changed: Tensor) -> Tensor:
    """Change the entries in a mask of cells [B, C, n]."""
    batch, bins, channels, *place = x.shape
    mask = changed.reshape(batch, channels, bins, *place).transpose(1, 2)
    return torch.where(mask, 1 - x, x)


def _deletions_first(plain: Tensor, filled: Tensor) -> Tensor:
    """Return [B, 2 n] with the gains of deletions, then of insertions, so that ties go to them."""
    return torch.cat(
        [torch.where(filled, plain, -1.0).flatten(1), torch.where(filled, -1.0, plain).flatten(1)],
        1,
    )


def _restored(chosen: Tensor, filled: Tensor) -> Tensor:
    """Return a mask over the entries, from one in the order of ``_deletions_first``."""
    deleted, inserted = chosen.chunk(2, dim=1)
    return deleted.view_as(filled) | inserted.view_as(filled)


def _sums(values: Tensor, count: int) -> Tensor:
    """Return the sums of the first 0, 1, ..., ``count`` values [B, count + 1]."""
    first = values[:, :count]
    sums = torch.cat([torch.zeros_like(values[:, :1]), first.cumsum(1)], 1)
    missing = count + 1 - sums.shape[1]
    return torch.cat([sums, sums[:, -1:].expand(-1, missing)], 1) if missing > 0 else sums
