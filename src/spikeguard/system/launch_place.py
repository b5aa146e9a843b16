"""The place of this process among those that torchrun or srun started to train together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Place", "this_place"]


@dataclass(frozen=True)
class Place:
    """One of several processes that were started with the same command.

    Attributes:
        rank: Its number, from 0.
        size: Number of processes, >= 2.
        local_rank: Its number on its host, from 0.
        address: Host of rank 0, where all processes meet; None leaves it to the list of hosts that
            SLURM keeps.
        port: Port on that host, or None.
        hosted: Whether the launcher keeps the common store at that address, not rank 0.
        attempt: How often the launcher has restarted the processes.
    """

    rank: int
    size: int
    local_rank: int
    address: str | None = None
    port: int | None = None
    hosted: bool = False
    attempt: int = 0


def this_place(environment: Mapping[str, str] | None = None) -> Place | None:
    """Return the place of this process; None if it was started alone.

    ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` of torchrun count
    before ``SLURM_PROCID``, ``SLURM_STEP_NUM_TASKS`` and ``SLURM_LOCALID`` of srun. A batch script
    of SLURM itself is not a task of srun.

    Args:
        environment: Variables by name; None takes those of this process.

    Raises:
        ValueError: If a variable is missing beside its partners, is no number, or is out of range.
    """
    given = os.environ if environment is None else environment
    if "WORLD_SIZE" in given or "RANK" in given:
        names, by = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), "torchrun"
    elif "SLURM_STEP_NUM_TASKS" in given:
        names, by = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"), "srun"
    else:
        return None
    rank, size, local = (_number(given, name, by) for name in names)
    if size < 1 or rank >= size or local > rank:
        raise ValueError(
            f"{names[0]}={rank}, {names[1]}={size}, {names[2]}={local}: ranks count from 0 to "
            f"{names[1]} - 1; start the processes with {by}."
        )
    if size == 1:
        return None
    port = _number(given, "MASTER_PORT", by) if "MASTER_PORT" in given else None
    address = given.get("MASTER_ADDR")
    if by == "torchrun" and (address is None or port is None):
        raise ValueError(
            "RANK and WORLD_SIZE are set, MASTER_ADDR or MASTER_PORT is not: start the processes "
            "with torchrun, or set all of them."
        )
    again = "TORCHELASTIC_RESTART_COUNT"
    attempt = _number(given, again, by) if again in given else 0
    hosted = given.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Place(rank, size, local, address, port, hosted, attempt)


def _number(given: Mapping[str, str], name: str, by: str) -> int:
    if name not in given:
        raise ValueError(f"{name} is not set: start the processes with {by}.")
    if not given[name].isdecimal():
        raise ValueError(f"{name} is a whole number >= 0, got {given[name]!r}.")
    return int(given[name])
