"""Shards of an evaluation run by several processes of one thread each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from spikeguard.attacks.base import Attack
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.plan import EvaluationPlan, plan_evaluation
from spikeguard.system.processes import run_in_processes
from spikeguard.system.progress import ProgressCallback, TaskProgressCallback

__all__ = ["Reload", "run_shards"]

Reload = Callable[[], tuple[nn.Module, ImageSet]]
"""Returns the model and the data in another process; can be pickled."""


def run_shards(
    plan: EvaluationPlan,
    reload: Reload,
    attacks: Mapping[str, Attack],
    options: EvaluationOptions,
    jobs: int,
    progress: ProgressCallback | None = None,
) -> None:
    """Run the shards that are not stored yet, several at a time.

    Args:
        plan: The evaluation; it stores its shards in a folder.
        reload: Returns the model and the data in another process; can be pickled.
        attacks: The attacks from which the plan was made; can be pickled.
        options: The options from which the plan was made.
        jobs: Number of processes, >= 1.
        progress: Callback ``(done, total, what)`` with sums over the processes, or None.

    Raises:
        Exception: The first error of a process; it ends all other processes.
    """
    work = [(reload, dict(attacks), options, start, str(start)) for start in plan.missing]
    if work:
        combined = _CombinedProgress(progress, len(work))
        run_in_processes(_run_shard, work, min(jobs, len(work)), combined)


def _run_shard(
    reload: Reload,
    attacks: Mapping[str, Attack],
    options: EvaluationOptions,
    start: int,
    task: str,
    progress: TaskProgressCallback,
) -> None:
    """Run one shard in a worker process, which loads model and data itself."""
    plan = plan_evaluation(*reload(), attacks, options)
    meter = plan.meter(
        lambda done, total, what: progress(task, done, total, what), len(plan.index(start))
    )
    plan.shard(start, meter)
    meter.finish()


class _CombinedProgress:
    """Sums the progress of several shards; a shard not started yet counts as an average one."""

    def __init__(self, progress: ProgressCallback | None, shards: int):
        self._progress = progress
        self._shards = shards
        self._counts: dict[str, tuple[int, int]] = {}

    def __call__(self, task: str, done: int, total: int, what: str) -> None:
        self._counts[task] = done, total
        all_done = sum(each for each, _ in self._counts.values())
        known = sum(each for _, each in self._counts.values())
        whole = round(known * self._shards / len(self._counts))
        if self._progress is not None and (
            what != "done" or all_done == whole
        ):  # a finished shard does not end the evaluation
            self._progress(all_done, whole, what)
