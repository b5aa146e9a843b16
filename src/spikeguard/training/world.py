"""The ranks of a training: processes that share every batch and hold the same weights.

One process alone is :data:`ALONE`, whose operations do nothing. Several meet in
:mod:`spikeguard.training.meeting`. They agree on what is small through the CPU (gloo); gradients
and batch statistics go the way of their device. Objects travel by pickle, between processes of one
run only.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from spikeguard.system.errors import is_user_error
from spikeguard.system.launch_place import Place
from spikeguard.training.watch import LOST, SILENCE, Failure, Watch

__all__ = ["ALONE", "RankLost", "World"]

_KNOWN = 2.0  # seconds for a failure to be known to all ranks
_T = TypeVar("_T")


class RankLost(RuntimeError):
    """Another rank failed or died; nothing is lost, the run can be resumed.

    Attributes:
        exit_code: Code with which this process ends.
        must_show: Whether this rank reports it, because rank 0 cannot.
    """

    def __init__(self, message: str, *, exit_code: int, must_show: bool):
        super().__init__(message)
        self.exit_code, self.must_show = exit_code, must_show


class World:
    """The ranks that train together, seen from one of them.

    Attributes:
        rank: Number of this rank, from 0.
        size: Number of ranks.
        local_rank: Number of this rank on its host.
    """

    def __init__(self, place: Place | None = None, watch: Watch | None = None):
        self.rank, self.size, self.local_rank = 0, 1, 0
        if place is not None:
            self.rank, self.size, self.local_rank = place.rank, place.size, place.local_rank
        self._watch = watch

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone writes files and output."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """Return the name of a rank for messages: number and host."""
        return f"rank {rank}" if self._watch is None else self._watch.name(rank)

    def share(self, rows: Tensor) -> Tensor:
        """Return this rank's contiguous share of some rows [n]."""
        return rows if self.size == 1 else rows.tensor_split(self.size)[self.rank]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum over ranks of each number; bit for bit the same on every rank."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true on some rank."""
        return flag if self.size == 1 else self.sum([float(flag)])[0] > 0

    def sum_of(self, tensor: Tensor) -> Tensor:
        """Return the sum over ranks of a tensor, on its device."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, value: _T) -> list[_T]:
        """Return the value of every rank, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def of_first(self, value: _T) -> _T:
        """Return the value of rank 0."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let an error of one rank in the block be the error of all.

        The block does not communicate. The rank with the error raises it, the others
        :class:`RankLost`; rank 0 reports it.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        if self.size > 1:
            self._raise_first(self.gather(None if error is None else _told(error)), error)
        if error is not None:
            raise error

    def require_equal(self, facts: Mapping[str, Any]) -> None:
        """Reject facts, as JSON values, that differ between ranks.

        Raises:
            ValueError: On every rank; it names the first difference, its rank and the host.
        """
        all_ranks = self.gather(dict(facts))
        first = all_ranks[0]
        for rank, other in enumerate(all_ranks):
            if other != first:
                name, theirs, ours = _difference(other, first)
                raise ValueError(
                    f"{self.name(rank)} has another {name} than rank 0, {theirs} instead of "
                    f"{ours}; give all ranks the same code, data and settings."
                )

    def fail(self, error: BaseException) -> BaseException:
        """Tell all ranks of an error of this one; return the error to raise in its place.

        A failed exchange between ranks is explained by the rank that caused it.
        """
        if self._watch is None or isinstance(error, RankLost):
            return error
        with _undisturbed():
            interrupted = isinstance(error, KeyboardInterrupt)
            if interrupted or _is_exchange(error):
                found = self._watch.failure(_KNOWN if interrupted else SILENCE + _KNOWN)
                if found is not None and (found.code == LOST or not interrupted):
                    return self._lost(found)
            code = 2 if is_user_error(error) or isinstance(error, OSError) else 1
            code = getattr(error, "exit_code", 130 if interrupted else code)
            own = Failure(self.rank, self.name(self.rank), _told(error), code, told=self.is_first)
            try:
                first = self._watch.report(own)
                if self.is_first:
                    self._watch.wait_until_known(_KNOWN)
            except RuntimeError:  # the store is gone
                return error
            same = first.what == own.what  # all ranks have found the same mistake
            return error if interrupted or same else self._lost(first)

    def leave(self) -> None:
        """Part from the other ranks after the work is done; rank 0 leaves last."""
        if self._watch is None:
            return
        dist.barrier()
        self._watch.stop()
        dist.barrier()  # the store outlives all threads that read it
        dist.destroy_process_group()

    def abandon(self) -> None:
        """Part from the other ranks after an error."""
        if self._watch is not None:
            self._watch.stop()

    def _raise_first(self, errors: Sequence[str | None], own: Exception | None) -> None:
        """Raise the error of the first rank that has one, on every rank."""
        for rank, text in enumerate(errors):
            if text is None:
                continue
            if own is not None and text == errors[self.rank]:
                raise own  # every rank has it, or this one is the first
            raise RankLost(f"{self.name(rank)}: {text}", exit_code=2, must_show=False) from own

    def _lost(self, failure: Failure) -> RankLost:
        shown = failure.must_be_shown_by(self.rank) and self.rank > 0
        return RankLost(failure.text, exit_code=failure.code, must_show=shown)


ALONE = World()


def _difference(one: Any, other: Any, name: str = "") -> tuple[str, Any, Any]:
    """Return the name of the first entry that differs, and its two values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in {**other, **one}:
            if one.get(key) != other.get(key):
                return _difference(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))
    return name, one, other


def _is_exchange(error: BaseException) -> bool:
    """Whether an error comes from an exchange between ranks."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError)
        or any(word in text for word in ("gloo", "nccl", "closed by peer", "reset by peer"))
    )


def _told(error: BaseException) -> str:
    """Return the message of an error in one line."""
    message = " ".join(str(error).split())
    if is_user_error(error) or isinstance(error, OSError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore SIGTERM inside the block: a launcher sends it when it sees that a rank has died."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        with suppress(TypeError):  # a handler that Python did not set
            signal.signal(signal.SIGTERM, before)
