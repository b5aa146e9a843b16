"""The numbers that a launcher of processes leaves in the environment: torchrun, srun, or an array.

``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK`` of torchrun count before ``SLURM_PROCID``,
``SLURM_STEP_NUM_TASKS`` and ``SLURM_LOCALID`` of srun. A batch script of SLURM itself, which may
hold an allocation of many tasks, is no task of srun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Launched", "launched", "pair", "whole_number"]

_LAUNCHERS = {  # the variables of each, and which of them says that it started the process
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", ("RANK", "WORLD_SIZE")),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ("SLURM_STEP_NUM_TASKS",)),
}


@dataclass(frozen=True)
class Launched:
    """A process that a launcher started.

    Attributes:
        rank: Its number, from 0.
        size: Number of processes, >= 1.
        local: Its number on its host, from 0; None if the launcher does not say.
        by: Name of the launcher.
        local_name: The variable that says its number on its host.
    """

    rank: int
    size: int
    local: int | None
    by: str
    local_name: str


def launched(given: Mapping[str, str]) -> Launched | None:
    """Return the numbers of this process; None if no launcher started it.

    Args:
        given: Variables by name.

    Raises:
        ValueError: If a variable is missing beside its partner, is no number, or is out of range.
    """
    for by, (number, size, local, signs) in _LAUNCHERS.items():
        if not any(name in given for name in signs):
            continue
        found = pair(given, number, size, by)
        assert found is not None
        rank, of = found
        if rank >= of:
            raise ValueError(
                f"{number}={rank}, {size}={of}: ranks count from 0 to {of - 1}; start the "
                f"processes with {by}."
            )
        place = whole_number(given, local) if local in given else None
        return Launched(rank, of, place, by, local)
    return None


def pair(given: Mapping[str, str], number: str, size: str, by: str) -> tuple[int, int] | None:
    """Return the values of two variables that come together; None where neither is set.

    Raises:
        ValueError: If one is missing, is no number, or the size is below 1.
    """
    present = [name for name in (number, size) if name in given]
    if not present:
        return None
    if len(present) == 1:
        other = size if present == [number] else number
        raise ValueError(
            f"{present[0]} is set and {other} is not: start the processes with {by}, or set both, "
            "or none."
        )
    found = whole_number(given, number), whole_number(given, size)
    if found[1] < 1:
        raise ValueError(f"{size} counts processes, >= 1, got {found[1]}.")
    return found


def whole_number(given: Mapping[str, str], name: str) -> int:
    """Return the value of a variable.

    Raises:
        ValueError: If it is no whole number >= 0.
    """
    if not given[name].isdecimal():
        raise ValueError(f"{name} is a whole number >= 0, got {given[name]!r}.")
    return int(given[name])
