"""The place of this process among those that torchrun or srun started to train together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from spikeguard.system.launcher import launched, whole_number

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

    Its numbers are those of torchrun or srun, see :func:`spikeguard.system.launcher.launched`; rank
    0 is at ``MASTER_ADDR`` and ``MASTER_PORT``, which torchrun sets.

    Args:
        environment: Variables by name; None takes those of this process.

    Raises:
        ValueError: If a variable is missing beside its partners, is no number, or is out of range.
    """
    given = os.environ if environment is None else environment
    found = launched(given)
    if found is None or found.size == 1:
        return None
    if found.local is None:
        raise ValueError(f"{found.local_name} is not set: start the processes with {found.by}.")
    if found.local > found.rank:
        raise ValueError(
            f"{found.local_name}={found.local} is above the rank {found.rank}; start the processes "
            f"with {found.by}."
        )
    port = whole_number(given, "MASTER_PORT") if "MASTER_PORT" in given else None
    address = given.get("MASTER_ADDR")
    if found.by == "torchrun" and (address is None or port is None):
        raise ValueError(
            "RANK and WORLD_SIZE are set, MASTER_ADDR or MASTER_PORT is not: start the processes "
            "with torchrun, or set all of them."
        )
    again = "TORCHELASTIC_RESTART_COUNT"
    attempt = whole_number(given, again) if again in given else 0
    hosted = given.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Place(found.rank, found.size, found.local, address, port, hosted, attempt)
