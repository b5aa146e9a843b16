"""join(): the ranks of a training meet at the store of rank 0, and part at the end."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import TCPStore  # type: ignore[attr-defined]

from spikeguard.system.launch_place import Place
from spikeguard.training.watch import Watch
from spikeguard.training.world import World

__all__ = ["NotJoined", "join"]

JOIN_SECONDS = 300.0  # for all ranks to start
_COLLECTIVE = timedelta(minutes=30)  # a rank that lives but does not come, such as in a debugger


class NotJoined(ValueError):
    """Not all ranks met.

    Attributes:
        must_show: Whether this rank reports it, although it may not be rank 0: one on each host.
    """

    def __init__(self, message: str, place: Place):
        super().__init__(message)
        self.must_show = place.local_rank == 0


@contextmanager
def join(
    place: Place, address: str, port: int, *, seconds: float = JOIN_SECONDS
) -> Iterator[World]:
    """Meet the other ranks, and part from them at the end of the block.

    Args:
        place: The place of this process.
        address: Host of rank 0.
        port: A free port there.
        seconds: How long to wait for the others.

    Raises:
        RankLost: If another rank fails or dies in the block.
        NotJoined: If not all ranks come in time, or rank 0 cannot be reached.
    """
    store = _meet(place, address, port, seconds)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore("group", store),
            rank=place.rank,
            world_size=place.size,
            timeout=_COLLECTIVE,
        )
        own = _connect(place, address, port, seconds)
        watch = Watch(PrefixStore("watch", own), place.rank, place.size)
    except RuntimeError as error:
        raise NotJoined(
            f"rank {place.rank} cannot join the others at {address}:{port} ({_first_line(error)}).",
            place,
        ) from error
    dist.barrier()
    watch.start()
    world = World(place, watch)
    try:
        yield world
    except BaseException as error:
        found = world.fail(error)
        world.abandon()
        if found is error:
            raise
        raise found from error
    world.leave()


def _meet(place: Place, address: str, port: int, seconds: float) -> Any:
    """Return the store of the run, in which all ranks have written their host."""
    try:
        if place.rank or place.hosted:
            _await_host(address, port, seconds)
        store = _connect(place, address, port, seconds, host=place.rank == 0)
    except (RuntimeError, OSError) as error:
        raise NotJoined(
            f"rank {place.rank} of {place.size} on {platform.node()} cannot reach rank 0 at "
            f"{address}:{port} within {seconds:g} s ({_first_line(error)}); check MASTER_ADDR, "
            "MASTER_PORT and the network.",
            place,
        ) from error
    store.set(f"here/{place.rank}", platform.node())
    everyone = [f"here/{rank}" for rank in range(place.size)]
    try:
        store.wait(everyone, timedelta(seconds=seconds))
    except RuntimeError as error:
        missing = [str(rank) for rank in range(place.size) if not store.check([everyone[rank]])]
        raise NotJoined(
            f"{len(missing)} of {place.size} ranks did not come to {address}:{port} within "
            f"{seconds:g} s: {', '.join(missing)}; start all of them with the same address.",
            place,
        ) from error
    return store


def _await_host(address: str, port: int, seconds: float) -> None:
    """Wait until the host of the store takes connections; TCPStore would wait several times.

    Raises:
        OSError: If the name is unknown, or nothing answers within so many seconds.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            left = max(until - time.monotonic(), 0.1)
            socket.create_connection((address, port), timeout=min(left, 10.0)).close()
        except OSError as error:
            unknown = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
            if unknown or time.monotonic() >= until:
                raise
            time.sleep(min(0.2, seconds))
        else:
            return


def _connect(place: Place, address: str, port: int, seconds: float, *, host: bool = False) -> Any:
    """Return a connection to the store; rank 0 hosts it unless torchrun does."""
    store = TCPStore(
        address,
        port,
        place.size,
        is_master=host and not place.hosted,
        timeout=timedelta(seconds=seconds),
        wait_for_workers=False,
        multi_tenant=True,
    )
    return PrefixStore(f"spikeguard/{place.attempt}", store)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
