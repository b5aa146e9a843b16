"""SearchRounds: runs the rounds of a converging search on a block of samples."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD, Attack, cost
from spikeguard.attacks.losses import margin
from spikeguard.attacks.model_access import (
    classify,
    crafting,
    evaluating,
    is_stochastic,
    observe_passes,
)
from spikeguard.attacks.searches.active_set import Judge, active_set
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.attacks.searches.nearest import Nearest
from spikeguard.attacks.searches.search_state import Round, SearchState
from spikeguard.attacks.searches.stepwise import can_step
from spikeguard.rng import SampleStreams

__all__ = ["SearchRounds"]


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

    def run(self, name: str, attack: Attack) -> Round:
        """Run a search on the samples that are left and record the round."""
        state, passes, began = self.state, 0, time.process_time()
        streams = self.streams.fork("round", len(state.rounds))

        def count(samples: int, gradient: bool) -> None:
            nonlocal passes  # whole numbers, whose sum does not depend on the batches
            passes += samples * (round(1 / FORWARD) if gradient else 1)

        with observe_passes(count):
            if isinstance(attack, LocalClimb):
                self._climb(attack, streams)
            else:
                self._search(attack, streams)
        left, took = float(state.right.sum()), time.process_time() - began
        spent = state.spent + cost(attack)
        made = Round(name, cost(attack), spent, passes * FORWARD, state.left - left, left, took)
        state.rounds.append(made)
        return made

    def _climb(self, attack: LocalClimb, streams: SampleStreams) -> None:
        """Climb from the points of lowest margin; they are used up."""
        began = time.process_time()
        rows = self.seen()
        x, y, own = self._part(rows, streams)
        start = self.state.nearest.points[rows.to(x.device)]
        with crafting(self.model, x, y, own) as search:
            batch_size = self.batch_size * attack.candidates // 2
            climbed = attack.climb(self.model, x, y, start, search, batch_size=batch_size)
        self.state.nearest.margin[rows] = torch.inf
        shares = self._judged(rows, climbed.points)
        self._accept(rows, climbed.points, shares, began, climbed.fooled_at)

    def _search(self, attack: Attack, streams: SampleStreams) -> None:
        began = time.process_time()
        rows = self.left()
        x, y, own = self._part(rows, streams)
        if not can_step(attack, self.model):
            found = torch.cat(
                [
                    attack(self.model, x[p], y[p], generator=own.take(p)).detach()
                    for p in self._batches(len(rows))
                ]
            )
            self._accept(rows, found, self._judged(rows, found), began)
            if not is_stochastic(self.model):
                self.state.nearest.see(rows, found, self._margins(found, y))
            return
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
        self._accept(rows, found, shares, began, nearest.fooled_at)
        self.state.nearest.see(rows, nearest.points, nearest.margin)

    @torch.no_grad()
    def _margins(self, points: Tensor, y: Tensor) -> Tensor:
        """Return by how much each true class leads at a point [B]."""
        parts = [p.to(points.device) for p in self._batches(len(points))]
        with evaluating(self.model):
            return torch.cat([-margin(classify(self.model, points[p], y[p]), y[p]) for p in parts])

    def _part(self, rows: Tensor, streams: SampleStreams) -> tuple[Tensor, Tensor, SampleStreams]:
        at = rows.to(self.x.device)
        return self.x[at], self.y[at], streams.take(rows)

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
        lower = shares < state.right[rows]
        here = rows[lower].to(self.x.device)
        state.points[here] = points[lower.to(points.device)]
        state.right[rows[lower]] = shares[lower].to(state.right)
        fallen = lower & (shares == 0)
        state.fell[rows[fallen]] = state.cpu_s + times[fallen].to(state.fell) - began
