"""ShardQueue: the shards of an evaluation as a queue from which ranks take, in a shared folder.

The file system is the queue: a rank claims a shard, runs it and stores it. Ranks may come and go.
The shard of a rank that has ended is claimed by another one, which continues from the state that
the first one saved. Outcomes are those of one process, because they do not depend on the shard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spikeguard.evaluation.plan import EvaluationPlan
from spikeguard.storage.claims import Claim, Claims
from spikeguard.system.progress import ProgressCallback

__all__ = ["SHARDS_A_RANK", "ShardQueue", "shards_for"]

SHARDS_A_RANK = 4  # so that a shard of robust images does not hold up the other ranks


class _ClaimLost(Exception):
    """Another rank has taken over the shard, because this one was silent for too long."""


@dataclass(frozen=True)
class ShardQueue:
    """The queue of one evaluation.

    Attributes:
        plan: The evaluation; it stores its shards in a folder that all ranks share.
        claims: The claims of the ranks.
        name: Names the evaluation among them.
        is_saved: Whether the result is saved already; its shards are removed then.
    """

    plan: EvaluationPlan
    claims: Claims
    name: str
    is_saved: Callable[[], bool]

    def run_one(self, progress: ProgressCallback | None = None) -> bool:
        """Run the first shard that is neither stored nor claimed; return whether there was one.

        Args:
            progress: Callback ``(done, total, what)`` in images of the whole evaluation, or None.
        """
        for start in self.plan.missing:
            claim = self.claims.take(f"{self.name}{start:08d}")
            if claim is None:
                continue
            with claim:
                if start not in self.plan.missing or self.is_saved():
                    continue  # another rank has just stored it
                try:
                    self._run(start, claim, progress)
                except _ClaimLost:
                    continue
            return True
        return False

    def _run(self, start: int, claim: Claim, progress: ProgressCallback | None) -> None:
        plan, index, before = self.plan, self.plan.index(start), -1

        def update(done: int, total: int, what: str) -> None:
            nonlocal before
            percent = int(100 * done / max(1, total))
            if percent == before:
                return
            before = percent
            if claim.lost:
                raise _ClaimLost
            if progress is not None and what != "done":
                missing = sum(len(plan.index(each)) for each in plan.missing)
                whole = plan.samples - missing + len(index) * percent // 100
                progress(min(whole, plan.samples - 1), plan.samples, what)

        plan.shard(start, plan.meter(update, len(index)))


def shards_for(ranks: int, samples: int, batch_size: int) -> int:
    """Return into how many shards to divide samples: several a rank, of a whole batch if possible.

    Args:
        ranks: Number of ranks, >= 1.
        samples: Number of samples, >= 1.
        batch_size: Samples at once.
    """
    return max(ranks, min(SHARDS_A_RANK * ranks, samples // batch_size))
