"""SharedAttack: an attack that several ranks run together, from a queue in the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from spikeguard.evaluation.checked_plan import checked_plan
from spikeguard.evaluation.plan import EvaluationPlan, plan_evaluation
from spikeguard.evaluation.shard_queue import ShardQueue, shards_for
from spikeguard.runs.attack_job import AttackJob, ReadyJob
from spikeguard.storage.claims import Claims

if TYPE_CHECKING:
    from spikeguard.system.progress import ProgressCallback

__all__ = ["SharedAttack", "run_together"]

_POLL = 1.0  # seconds between two looks at shards that other ranks run


class SharedAttack:
    """One attack, its queue of shards, and its result, which exactly one rank writes.

    Args:
        job: The attack.
        claims: Claims of the ranks, in a folder that they share.
        ranks: Number of ranks that may come.
        check: Whether to check the model before a new evaluation.
        announce: Called with lines of text, or None.
        progress: Callback ``(done, total, what)`` in images, or None.
    """

    def __init__(
        self,
        job: AttackJob,
        claims: Claims,
        ranks: int,
        *,
        check: bool = True,
        announce: Callable[[str], None] | None = None,
        progress: ProgressCallback | None = None,
    ):
        self.job, self._claims, self._ranks = job, claims, ranks
        self._check, self._announce, self._progress = check, announce, progress
        self._name = f"{job.stem.name}@"
        self._begun: tuple[ReadyJob, EvaluationPlan] | None = None

    def work(self) -> bool:
        """Run shards until none is free, and write the result if all are stored.

        Returns:
            Whether anything was done.

        Raises:
            ValueError: If the shards in the folder are of another model, other data or settings.
        """
        if self._is_saved():
            return False
        with self._claims.waiting(f"{self._name}result"):
            if self._is_saved():
                return False
            ready, plan = self._begun = self._begun or self._begin()
        queue = ShardQueue(plan, self._claims, self._name, self._is_saved)
        ran = False
        while queue.run_one(self._progress):
            ran = True
        if plan.missing:
            return ran
        with self._claims.waiting(f"{self._name}result"):
            if not self._is_saved():
                ready.finish(check=False)
                self._claims.clear(self._name)
        return True

    def _is_saved(self) -> bool:
        return self.job.is_stored

    def show_end(self) -> None:
        """Report the end to ``progress`` if the result is stored."""
        if self.job.is_stored and self._begun is not None and self._progress is not None:
            samples = self._begun[1].samples
            self._progress(samples, samples, "done")

    def _begin(self) -> tuple[ReadyJob, EvaluationPlan]:
        """Settle the attacks, check the model and open the folder of shards, as one rank alone."""
        job = self.job
        ready = job.prepare(jobs=self._ranks, check=self._check, announce=self._announce)
        samples = len(job.data.test) if job.plan.limit is None else job.plan.limit
        shards = shards_for(self._ranks, samples, job.plan.batch_size)
        plan = checked_plan if self._check else plan_evaluation
        return ready, plan(job.model, job.data.test, ready.attacks, ready.options, jobs=shards)


def run_together(attacks: Sequence[SharedAttack], *, wait: bool) -> None:
    """Run attacks together with the other ranks.

    A rank for which no shard is free goes on with the next attack.

    Args:
        attacks: In the order in which they are begun.
        wait: Whether to wait until all results are there, and to take over the shards of ranks
            that end; else to return when no shard is free.
    """
    left = list(attacks)
    while left:
        did = [each.work() for each in left]
        for each in left:
            each.show_end()
        left = [each for each in left if not each.job.is_stored]
        if left and not any(did):
            if not wait:
                return
            time.sleep(_POLL)
