"""Ranks: the processes that torchrun, srun or a SLURM array started together, by environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from spikeguard.system.launcher import launched, pair, whole_number

__all__ = ["Rank", "this_rank"]


@dataclass(frozen=True)
class Rank:
    """One of several processes that were started with the same command.

    Attributes:
        name: Its number; "task.number" within a task of a SLURM array.
        size: Number of processes, >= 2; some of an array may never start.
        first: Whether it is the first one.
        in_array: Whether tasks start at different times, and leave when there is no work for them.
    """

    name: str
    size: int
    first: bool
    in_array: bool = False

    def __str__(self) -> str:
        return f"{'array task' if self.in_array else 'rank'} {self.name} of {self.size}"


def this_rank(environment: Mapping[str, str] | None = None) -> Rank | None:
    """Return the rank of this process; None if it was started alone.

    ``SLURM_ARRAY_TASK_ID`` and ``SLURM_ARRAY_TASK_COUNT`` of an array are added to the numbers of
    torchrun or srun, see :func:`spikeguard.system.launcher.launched`.

    Args:
        environment: Variables by name; None takes those of this process.

    Raises:
        ValueError: If a variable is missing beside its partner, is no number, or is out of range.
    """
    given = os.environ if environment is None else environment
    found = launched(given)
    number, size = (0, 1) if found is None else (found.rank, found.size)
    array = pair(given, "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "a SLURM array")
    if array is None or array[1] == 1:
        return Rank(str(number), size, number == 0) if size > 1 else None
    task, tasks = array
    minimum = "SLURM_ARRAY_TASK_MIN"
    least = whole_number(given, minimum) if minimum in given else task
    name = f"{task}.{number}" if size > 1 else str(task)
    first = task == least and number == 0
    return Rank(name, tasks * size, first, in_array=True)
