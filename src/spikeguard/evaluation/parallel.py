"""TODO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from spikeguard.data.images import ImageSet
from spikeguard.evaluation.plan import EvaluationPlan, plan_evaluation
from spikeguard.evaluation.progress import Progress
from spikeguard.system.processes import run_in_processes

__all__ = ["Reload", "run_shards"]


Reload = Callable[[], tuple[nn.Module, ImageSet]]


def run_shards(
    layout: EvaluationPlan,
    reload: Reload,
    arguments: Mapping[str, Any],
    jobs: int,
    progress: Progress | None = None,
) -> None:
    """Make the parts that are not kept yet, several at a time, each in a process of one thread.

    Args:
        layout: The evaluation; it keeps its parts in a folder.
        reload: Returns the model and the data in another process; can be pickled.
        arguments: What :func:`lay_out` got beside the model and the data; can be pickled.
        jobs: Processes, >= 1.
        progress: Called with (done, total, what), summed over the processes.

    Raises:
        Exception: The first error of a process, which ends all others.
    """
    work = [(reload, dict(arguments), start, str(start)) for start in layout.missing]
    if work:
        run_in_processes(
            _run_shard, work, min(jobs, len(work)), _CombinedProgress(progress, len(work))
        )


def _run_shard(
    reload: Reload,
    arguments: dict[str, Any],
    start: int,
    task: str,
    tell: Callable[[str, int, int, str], None],
) -> None:
    """Make one part, in a process that has nothing yet."""
    layout = plan_evaluation(*reload(), **arguments)
    meter = layout.meter(lambda *far: tell(task, *far), len(layout.index(start)))
    layout.part(start, meter)
    meter.finish()


class _CombinedProgress:
    """Adds up how far several parts are; those not begun yet are taken for the usual ones."""

    def __init__(self, progress: Progress | None, parts: int):
        self._progress = progress
        self._parts = parts
        self._far: dict[str, tuple[int, int]] = {}

    def __call__(self, task: str, done: int, total: int, what: str) -> None:
        self._far[task] = done, total
        made = sum(far for far, _ in self._far.values())
        known = sum(whole for _, whole in self._far.values())
        whole = round(known * self._parts / len(self._far))
        if self._progress is not None and (
            what != "done" or made == whole
        ):  # one part's end is not the end
            self._progress(made, whole, what)
