"""Converging: searches in turn, the most productive next, until no more samples fall."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, cost
from spikeguard.attacks.model_access import (
    classify,
    crafting,
    evaluating,
    is_stochastic,
    observe_passes,
)
from spikeguard.attacks.searches.active_set import Judge, Nearest, active_set, can_step
from spikeguard.attacks.searches.bandit import Bandit
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.attacks.searches.noisy_portfolio import noisy_portfolio
from spikeguard.attacks.searches.portfolio import portfolio
from spikeguard.attacks.suitability import suitable
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["Converging", "Progress", "Round"]

_FLAT_FACTOR = math.sqrt(10)
_FLAT_SHARE = 0.005
_FIRST = 900  # gradients per sample before which no curve is flat

FLAT, SPENT, NONE_LEFT = "flat", "budget spent", "no sample left"


@dataclass(frozen=True)
class Round:
    """One use of a search.

    Attributes:
        search: Its name.
        spent: Gradients per sample that stayed to the end, all rounds so far.
        gradients: Gradients of all samples together in this round; a forward pass counts a third.
        fooled: Samples fooled in this round; with noise, the fall of the summed shares.
        left: What is left after it: samples, or the sum of the shares of correct draws.
        cpu_s: CPU seconds of this round.
    """

    search: str
    spent: float
    gradients: float
    fooled: float
    left: float
    cpu_s: float


@dataclass
class Progress:
    """State of a converging search on a block of samples, complete enough to resume it.

    Attributes:
        points: The worst input of each sample so far [N, ...].
        right: Share of correct draws on it [N], on the CPU; 0 is fooled.
        nearest: Points of lowest margin since the last climb.
        start: The sum of the shares before the first round.
        rounds: What was run so far.
        ended: The rule that ended the search; empty while it runs.
    """

    points: Tensor
    right: Tensor
    nearest: Nearest
    start: float
    rounds: list[Round] = field(default_factory=list)
    ended: str = ""

    @classmethod
    def of(cls, x: Tensor, right: Tensor) -> Progress:
        """Return the state before the first round."""
        return cls(x.clone(), right.clone(), Nearest.of(x), float(right.sum()))

    @property
    def spent(self) -> float:
        """Gradients per sample that stayed to the end."""
        return self.rounds[-1].spent if self.rounds else 0.0

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the state as arrays, for a file."""
        numbers = ("spent", "gradients", "fooled", "left", "cpu_s")
        return {
            "points": self.points.cpu().numpy(),
            "right": self.right.numpy(),
            "near": self.nearest.points.cpu().numpy(),
            "margin": self.nearest.margin.numpy(),
            "start": np.array(self.start),
            "searches": np.array([each.search for each in self.rounds], dtype=np.str_),
            "numbers": np.array(
                [[getattr(each, name) for name in numbers] for each in self.rounds]
            ).reshape(-1, len(numbers)),
            "ended": np.array(self.ended),
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray[Any, Any]], device: torch.device
    ) -> Progress:
        """Rebuild a state from the result of :meth:`arrays`."""
        kept = {n: torch.from_numpy(arrays[n]) for n in ("points", "right", "near", "margin")}
        rounds = [
            Round(str(search), *map(float, row))
            for search, row in zip(arrays["searches"], arrays["numbers"], strict=True)
        ]
        nearest = Nearest(kept["near"].to(device), kept["margin"])
        return cls(
            kept["points"].to(device),
            kept["right"],
            nearest,
            float(arrays["start"]),
            rounds,
            str(arrays["ended"]),
        )


@dataclass(frozen=True)
class Converging:
    r"""Searches of a portfolio in turn, each on the samples that are left, until the curve is flat.

    The next search is the one that has fooled the largest share of the remaining samples per
    gradient lately (``Bandit``). A search becomes longer as more is spent. A fooled sample leaves
    at once. The search ends

    * when no sample is left;
    * when the curve is flat: every search was used, and since the point at which
      :math:`1/\sqrt{10}` of the present gradients were spent, at most 0.5 % of the samples fell;
    * when ``budget`` gradients were spent on every sample that is left.

    With noise in the model a sample leaves when all its scored draws are wrong.

    Args:
        threat: The set the adversary may use.
        budget: Gradients per sample, > 0; the last round may exceed it.

    Raises:
        ValueError: If the budget is not positive.
    """

    threat: Threat
    budget: float = 30_000

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise ValueError(f"Converging: budget counts gradients, > 0, got {self.budget:g}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample that is never fooled."""
        return self.budget

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        streams = SampleStreams.of(generator, len(x))

        @torch.no_grad()
        def judge(points: Tensor, rows: Tensor) -> Tensor:
            labels = y[rows.to(y.device)]
            with evaluating(model):
                return (classify(model, points, labels).argmax(1) == labels).double().cpu()

        start = Progress.of(x, torch.ones(len(x), dtype=torch.float64))
        return self.run(model, x, y, start, streams, batch_size=len(x), judge=judge).points

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        progress: Progress,
        streams: SampleStreams,
        *,
        batch_size: int,
        judge: Judge,
        after_round: Callable[[Progress], None] | None = None,
    ) -> Progress:
        """Run rounds until a rule ends the search.

        Args:
            model: The classifier.
            x: Inputs [N, ...]; the choice of searches depends on all of them.
            y: Labels [N].
            progress: The state to continue; it is changed.
            streams: A stream for each sample.
            batch_size: Samples at once; results do not depend on it.
            judge: ``(points [B, ...], rows [B]) -> share of correct draws [B]``; 0 is fooled.
            after_round: Called after each round, to save the state.
        """
        entries = (noisy_portfolio if is_stochastic(model) else portfolio)(self.threat)
        attacks = {name: entry.build(0, 0.0) for name, entry in entries.items()}
        kept, _ = suitable(attacks, model, x[:1])
        entries = {name: entries[name] for name in kept}
        bandit = _bandit(entries, progress)
        while not progress.ended:
            progress.ended = self._ended(progress, bandit, len(x))
            if progress.ended:
                break
            left = progress.right.nonzero()[:, 0]
            seen = progress.nearest.margin[left].isfinite()
            name = bandit.choose(set(entries) if bool(seen.any()) else set(entries) - {"climb"})
            attack = entries[name].build(bandit.uses[name], progress.spent)
            before, spent, began = float(progress.right.sum()), [0.0], time.process_time()

            def count(samples: int, gradient: bool, spent: list[float] = spent) -> None:
                spent[0] += samples * (1.0 if gradient else 1 / 3)

            with observe_passes(count):
                self._round(
                    model, x, y, attack, left[seen] if name == "climb" else left, progress,
                    streams.fork("round", len(progress.rounds)), batch_size, judge,
                )  # fmt: skip
            after = float(progress.right.sum())
            progress.rounds.append(
                Round(
                    name,
                    progress.spent + cost(attack),
                    spent[0],
                    before - after,
                    after,
                    time.process_time() - began,
                )
            )
            bandit.update(name, (before - after) / before, cost(attack))
            if after_round is not None:
                after_round(progress)
        return progress

    def remaining(self, progress: Progress) -> float:
        """Return the gradients until the curve is flat, if no further sample falls."""
        if progress.ended:
            return 0.0
        found = max((r.spent for r in progress.rounds if r.fooled), default=0.0)
        end = min(self.budget, max(found, _FIRST) * _FLAT_FACTOR)
        return max(0.0, end - progress.spent) * int((progress.right > 0).sum())

    def _ended(self, progress: Progress, bandit: Bandit, samples: int) -> str:
        """Return the rule that ends the search now, or an empty string."""
        if not bool(progress.right.any()):
            return NONE_LEFT
        spent = progress.spent
        if spent >= self.budget:
            return SPENT
        lately = sum(r.fooled for r in progress.rounds if r.spent > spent / _FLAT_FACTOR)
        tried = all(bandit.uses.values()) and spent >= _FIRST * _FLAT_FACTOR
        return FLAT if tried and lately <= _FLAT_SHARE * samples else ""

    def _round(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        attack: Attack,
        rows: Tensor,
        progress: Progress,
        streams: SampleStreams,
        batch_size: int,
        judge: Judge,
    ) -> None:
        """Run one search on the samples at these rows, and update the state."""
        at = rows.to(x.device)
        own_x, own_y, own_streams = x[at], y[at], streams.take(rows)
        nearest = Nearest.of(own_x)

        def judged(points: Tensor, inner: Tensor) -> Tensor:
            return judge(points, rows[inner])

        if isinstance(attack, LocalClimb):
            with crafting(model, own_x, own_y, own_streams) as search:
                start = progress.nearest.points[at]
                found = attack.climb(
                    model, own_x, own_y, start, search, batch_size=4 * batch_size
                ).points
            progress.nearest.margin[rows] = torch.inf
            shares = _in_batches(judged, found, batch_size)
        elif can_step(attack, model):
            found, shares = active_set(
                attack, model, own_x, own_y,
                streams=own_streams, batch_size=batch_size, judge=judged, nearest=nearest,
            )  # fmt: skip
        else:
            parts = torch.split(torch.arange(len(rows)), batch_size)
            found = torch.cat(
                [
                    attack(model, own_x[p], own_y[p], generator=own_streams.take(p)).detach()
                    for p in parts
                ]
            )
            shares = _in_batches(judged, found, batch_size)
        lower = shares < progress.right[rows]
        progress.points[at[lower.to(at.device)]] = found[lower.to(found.device)]
        progress.right[rows[lower]] = shares[lower].to(progress.right)
        if bool(nearest.margin.isfinite().any()):
            progress.nearest.see(rows, nearest.points, nearest.margin)


def _in_batches(judge: Judge, points: Tensor, batch_size: int) -> Tensor:
    parts = torch.split(torch.arange(len(points)), batch_size)
    return torch.cat([judge(points[part.to(points.device)], part) for part in parts])


def _bandit(entries: Mapping[str, Any], progress: Progress) -> Bandit:
    """Return the bandit after the rounds that were run."""
    bandit = Bandit({name: entry.expected for name, entry in entries.items()})
    spent = 0.0
    for each in progress.rounds:
        bandit.update(each.search, each.fooled / (each.fooled + each.left), each.spent - spent)
        spent = each.spent
    return bandit
