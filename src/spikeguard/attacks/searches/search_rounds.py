"""SearchRounds: runs the rounds of a converging search on a block of samples."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD, Attack, cost
from spikeguard.attacks.losses import margin
from spikeguard.attacks.model_access import (
    classify,
    crafting,
    draws_under_attack,
    evaluating,
    observe_passes,
)
from spikeguard.attacks.searches.active_set import Judge, active_set
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.attacks.searches.nearest import Nearest
from spikeguard.attacks.searches.search_state import Round, SearchState
from spikeguard.attacks.searches.stepwise import can_step
from spikeguard.rng import SampleStreams

__all__ = ["SearchRounds"]

_FULL = 64  # samples in a batch beyond which a step of one sample hardly gets cheaper
_STARTS = 8  # at most, of one sample in one search
_FILLED = 900  # gradients per sample before batches are filled: short searches stay various


@dataclass(frozen=True)
class SearchRounds:
    """Runs single searches on the samples of a block that are left, and updates its state.

    Attributes:
        model: The classifier.
        x: Inputs [N, ...].
        y: Labels [N].
        state: The state of the block; it is changed.
        streams: A stream for each sample.
        batch_size: Samples at once; results do not depend on it.
        judge: ``(points [B, ...], rows [B]) -> share of correct draws [B]``; 0 is fooled.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    state: SearchState
    streams: SampleStreams
    batch_size: int
    judge: Judge

    def left(self) -> Tensor:
        """Return the samples that are not fooled yet."""
        return self.state.right.nonzero()[:, 0]

    def seen(self) -> Tensor:
        """Return those of them that have a point of lowest margin."""
        left = self.left()
        return left[self.state.nearest.margin[left].isfinite()]

    def run(self, name: str, attack: Attack, part: int = 1) -> Round:
        """Run a search on the samples that are left and record the round.

        Args:
            name: Name of the search.
            attack: The search.
            part: With k > 1, the k-th part of the samples with the lowest margins is searched. A
                search that can run step by step starts k times from each of them, a climb once.
                Where few samples are left, later searches of both kinds start more often, up to 8
                times, so that their batches are full.
        """
        state, passes, began = self.state, 0, time.process_time()
        streams, before = self.streams.fork("round", len(state.rounds)), len(self.left())

        def count(samples: int, gradient: bool) -> None:
            nonlocal passes  # whole numbers, whose sum does not depend on the batches
            passes += samples * (round(1 / FORWARD) if gradient else 1)

        with observe_passes(count):
            if isinstance(attack, LocalClimb):
                runs = self._climb(attack, streams, part)
            else:
                runs = self._search(attack, streams, part)
        left, took = float(state.right.sum()), time.process_time() - began
        each = cost(attack) * runs / before
        made = Round(
            name, each, state.spent + each, passes * FORWARD, state.left - left, left, took
        )
        state.rounds.append(made)
        return made

    def _climb(self, attack: LocalClimb, streams: SampleStreams, part: int) -> int:
        """Climb from the points of lowest margin; they are used up. Return how many climbs."""
        began = time.process_time()
        rows = self.seen()
        rows = rows[_lowest(self.state.nearest.margin[rows], math.ceil(len(self.left()) / part))]
        rows, own, chains = self._chains(rows, self._fills(len(rows) * attack.candidates), streams)
        x, y = self._at(rows)
        start = self.state.nearest.points[rows.to(x.device)]
        with crafting(self.model, x, y, own) as search:
            batch_size = self.batch_size * attack.candidates // 2
            climbed = attack.climb(self.model, x, y, start, search, batch_size=batch_size)
        self.state.nearest.margin[rows] = torch.inf
        self.state.lowest.scatter_reduce_(0, rows, climbed.margin.to(self.state.lowest), "amin")
        shares = self._judged(rows, climbed.points)
        for chain in chains:
            at = climbed.fooled_at[chain]
            self._accept(rows[chain], climbed.points[chain], shares[chain], began, at)
        return len(rows)

    def _search(self, attack: Attack, streams: SampleStreams, part: int) -> int:
        """Search, and return how many searches."""
        began, rows = time.process_time(), self.left()
        before = len(rows)
        if not can_step(attack, self.model):
            (x, y), own = self._at(rows), streams.take(rows)
            found = torch.cat(
                [
                    attack(self.model, x[p], y[p], generator=own.take(p)).detach()
                    for p in self._batches(len(rows))
                ]
            )
            self._accept(rows, found, self._judged(rows, found), began)
            if not draws_under_attack(self.model):
                self.state.see(rows, found, self._margins(found, y))
            return len(rows)
        if part > 1:
            rows = rows[_lowest(self.state.lowest[rows], math.ceil(len(rows) / part))]
        most = max(round(before / len(rows)), self._fills(len(rows)))
        rows, own, chains = self._chains(rows, most, streams)
        x, y = self._at(rows)
        nearest = Nearest.of(x)
        found, shares = active_set(
            attack,
            self.model,
            x,
            y,
            streams=own,
            batch_size=self.batch_size,
            judge=lambda points, inner: self.judge(points, rows[inner]),
            nearest=nearest,
        )
        for chain in chains:
            here = rows[chain]
            self._accept(here, found[chain], shares[chain], began, nearest.fooled_at[chain])
            self.state.see(here, nearest.points[chain], nearest.margin[chain])
        return len(rows)

    def _fills(self, size: int) -> int:
        """Return how many repetitions of a batch make a full one."""
        return _FULL // size if self.state.spent >= _FILLED else 1

    def _chains(
        self, rows: Tensor, most: int, streams: SampleStreams
    ) -> tuple[Tensor, SampleStreams, tuple[Tensor, ...]]:
        """Repeat the rows ``most`` times, 8 at most.

        Returns:
            The rows, a stream for each, and the indices of each repetition.
        """
        count = max(1, min(_STARTS, most))
        parts = torch.arange(count * len(rows)).chunk(count)
        number = torch.arange(count).repeat_interleave(len(rows))
        rows = rows.repeat(count)
        own = streams.take(rows)
        if count > 1:
            own = SampleStreams(own.seed, own.ids * count + number)
        return rows, own, parts

    @torch.no_grad()
    def _margins(self, points: Tensor, y: Tensor) -> Tensor:
        """Return by how much each true class leads at a point [B]."""
        parts = [p.to(points.device) for p in self._batches(len(points))]
        with evaluating(self.model):
            return torch.cat([-margin(classify(self.model, points[p], y[p]), y[p]) for p in parts])

    def _at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        at = rows.to(self.x.device)
        return self.x[at], self.y[at]

    def _batches(self, count: int) -> tuple[Tensor, ...]:
        return torch.split(torch.arange(count), self.batch_size)

    def _judged(self, rows: Tensor, points: Tensor) -> Tensor:
        parts = self._batches(len(rows))
        return torch.cat([self.judge(points[p.to(points.device)], rows[p]) for p in parts])

    def _accept(
        self,
        rows: Tensor,
        points: Tensor,
        shares: Tensor,
        began: float,
        fooled_at: Tensor | None = None,
    ) -> None:
        """Keep the points that lower a sample's share, and the CPU time at which it fell."""
        state, now = self.state, time.process_time()
        times = (
            torch.full((len(rows),), now, dtype=torch.float64)
            if fooled_at is None
            else fooled_at.clamp_max(now)
        )
        fallen = shares == 0
        at = state.cpu_s + times[fallen].to(state.fell) - began
        state.fell[rows[fallen]] = torch.minimum(state.fell[rows[fallen]], at)
        lower = shares < state.right[rows]
        here = rows[lower].to(self.x.device)
        state.points[here] = points[lower.to(points.device)]
        state.right[rows[lower]] = shares[lower].to(state.right)


def _lowest(values: Tensor, count: int) -> Tensor:
    """Return the indices of the lowest values, in order; the first ones of equal values."""
    return values.argsort(stable=True)[:count].sort().values
