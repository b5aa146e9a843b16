"""ProgressMeter: progress of an evaluation in gradients spent, and an upper bound on the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from spikeguard.attacks.base import FORWARD, Attack, cost
from spikeguard.attacks.model_access import DEFAULT_EOT, observe_passes
from spikeguard.system.progress import ProgressCallback

__all__ = ["ProgressMeter"]

_UPDATES = 1000  # progress calls of a whole evaluation, beside one for every attack of every shard


class ProgressMeter:
    """Calls ``progress(done, total, what)`` with gradients spent, and spent plus remaining.

    ``done`` counts the passes that the model ran; a forward pass counts a third of a gradient. The
    remaining gradients are an upper bound: the cost of all later attacks on the samples that are
    still classified correctly. The total falls where attacks succeed, so that done / total follows
    the elapsed time although the expensive attacks of a cascade run last. A shard not started yet
    is assumed to cost as much as a finished one.

    Args:
        progress: Callback ``(done, total, what)``, or None.
        attacks: In the order in which they run.
        samples: Number of samples of the evaluation.
        draws: Forward passes that score an input.
        rescored: Forward passes that score an input once more, on the reported draws; > 0 for a
            stochastic model.
    """

    def __init__(
        self,
        progress: ProgressCallback | None,
        attacks: Mapping[str, Attack],
        samples: int,
        draws: int,
        rescored: int = 0,
    ):
        scoring = (draws + rescored) * FORWARD
        costs = {name: cost(attack) for name, attack in attacks.items()}
        known = [each for each in costs.values() if math.isfinite(each)]
        default = sum(known) / len(known) if known else 1.0  # for an attack that declares no cost
        self._costs = {n: scoring + (c if math.isfinite(c) else default) for n, c in costs.items()}
        gradients = DEFAULT_EOT if rescored else 1  # that are tested for being zero
        self._clean_cost = gradients + scoring  # without an attack
        self._progress = progress
        self._waiting = samples  # samples of shards not started
        self._finished, self._finished_spent = 0, 0.0  # samples of finished shards, their gradients
        self._shard, self._complete = 0, True  # samples of this shard; whether none was resumed
        self._spent = self._shard_start = self._stage_start = self._reported = 0.0
        self._stage, self._open, self._fooled = "", 0, 0
        self._expected, self._expected_at = math.inf, 0.0

    @contextmanager
    def counting_passes(self) -> Iterator[None]:
        """Count the model's passes inside the block."""
        if self._progress is None:
            yield
            return
        with observe_passes(self._count):
            yield

    def begin(self, samples: int) -> None:
        """Start the next shard, of ``samples`` samples."""
        self._waiting -= samples
        self._shard, self._complete, self._shard_start = samples, True, self._spent
        self._enter("", samples)

    def resume(self) -> None:
        """Mark this shard as resumed: its count is no estimate for other shards."""
        self._complete = False

    def end(self) -> None:
        """Finish the shard."""
        if self._complete:
            self._finished += self._shard
            self._finished_spent += self._spent - self._shard_start
        self._shard = self._open = 0

    def skip(self, samples: int) -> None:
        """Skip a shard that was finished earlier."""
        self._waiting -= samples

    def attack(self, name: str, samples: int) -> None:
        """Start an attack of the shard on ``samples`` samples."""
        self._enter(name, samples)
        self._report()

    def fooled(self, samples: int) -> None:
        """Set how many samples this attack has fooled; they need no further gradients."""
        self._fooled = samples

    def expect(self, gradients: float) -> None:
        """Set an estimate of the gradients that this attack still needs."""
        self._expected, self._expected_at = gradients, self._spent

    def finish(self) -> None:
        """Report the end of the evaluation."""
        if self._progress is not None:
            whole = max(1, round(self._spent))
            self._progress(whole, whole, "done")

    @property
    def left(self) -> float:
        """Upper bound on the remaining gradients."""
        return self._left_in_shard() + self._waiting * self._cost_per_sample()

    def _enter(self, stage: str, samples: int) -> None:
        self._stage, self._open, self._fooled = stage, samples, 0
        self._stage_start = self._spent
        self._expected, self._expected_at = math.inf, self._spent

    def _left_in_shard(self) -> float:
        names = list(self._costs)
        position = names.index(self._stage) if self._stage else -1
        each = self._costs[self._stage] if self._stage else self._clean_cost
        spent = self._spent - self._stage_start
        here = min(self._open * each - spent, (self._open - self._fooled) * each)
        here = min(here, self._expected - (self._spent - self._expected_at))
        later = sum(self._costs[name] for name in names[position + 1 :])
        return max(0.0, here) + self._open * later

    def _cost_per_sample(self) -> float:
        """Gradients for one sample of a shard not started yet."""
        if self._finished:
            return self._finished_spent / self._finished
        if self._shard and self._complete:
            return (self._spent - self._shard_start + self._left_in_shard()) / self._shard
        return self._clean_cost + sum(self._costs.values())

    def _count(self, samples: int, gradient: bool) -> None:
        self._spent += samples * (1.0 if gradient else FORWARD)
        due = _UPDATES * (self._spent - self._reported) >= self._spent + self.left
        if self._stage and due:
            self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._reported, done = self._spent, round(self._spent)
            self._progress(done, max(done + 1, round(self._spent + self.left)), self._stage)
