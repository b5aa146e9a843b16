"""Ranks: the processes that torchrun, srun or a SLURM array started together, by environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

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

    ``RANK`` and ``WORLD_SIZE`` of torchrun count before ``SLURM_PROCID`` and
    ``SLURM_STEP_NUM_TASKS`` of srun. ``SLURM_ARRAY_TASK_ID`` and ``SLURM_ARRAY_TASK_COUNT`` of an
    array are added to either.

    Args:
        environment: Variables by name; None takes those of this process.

    Raises:
        ValueError: If a variable is missing beside its partner, is no number, or is out of range.
    """
    given = os.environ if environment is None else environment
    number, size = _pair(given, "RANK", "WORLD_SIZE") or _of_step(given) or (0, 1)
    if number >= size:
        raise ValueError(f"rank {number} of {size} processes: ranks count from 0 to {size - 1}.")
    array = _pair(given, "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    if array is None or array[1] == 1:
        return Rank(str(number), size, number == 0) if size > 1 else None
    task, tasks = array
    least = _number(given, "SLURM_ARRAY_TASK_MIN") if "SLURM_ARRAY_TASK_MIN" in given else task
    name = f"{task}.{number}" if size > 1 else str(task)
    return Rank(name, tasks * size, task == least and number == 0, in_array=True)


def _of_step(given: Mapping[str, str]) -> tuple[int, int] | None:
    """Return number and count of a task that srun started; None outside such a step."""
    if "SLURM_STEP_NUM_TASKS" not in given:
        return None  # the batch script itself, which may hold an allocation of many tasks
    return _pair(given, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")


def _pair(given: Mapping[str, str], number: str, size: str) -> tuple[int, int] | None:
    present = [name for name in (number, size) if name in given]
    if not present:
        return None
    if len(present) == 1:
        other = size if present == [number] else number
        raise ValueError(
            f"{present[0]} is set and {other} is not; torchrun, srun and SLURM arrays set both: "
            "set both, or none."
        )
    found = _number(given, number), _number(given, size)
    if found[1] < 1:
        raise ValueError(f"{size} counts processes, >= 1, got {found[1]}.")
    return found


def _number(given: Mapping[str, str], name: str) -> int:
    if not given[name].isdecimal():
        raise ValueError(f"{name} is a whole number >= 0, got {given[name]!r}.")
    return int(given[name])
