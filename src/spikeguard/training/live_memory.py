"""Bytes of the tensors that are alive, and their peak, while a block of code runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LiveMemory"]

_MARKS = {"convolution", "convolution_backward", "addmm", "mm", "bmm"}


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory of tensors that are made inside the block, on any device.

    Every operation of torch passes through it, those of the backward pass too. A piece of memory
    counts from the operation that made it until its last tensor is gone. What an operation needs
    for itself and frees is not seen.

    Attributes:
        live: Bytes of the tensors made inside the block that are alive.
        peaks: The largest value of ``live`` between one convolution or matrix product and the next,
            one number for each, in order. Their number does not depend on the batch, so that the
            curves of two batches can be compared point by point.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peaks = [0]
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = {_place(tensor) for tensor in _tensors((args, kwargs))}
        if func.overloadpacket.__name__ in _MARKS:
            self.peaks.append(self.live)
        found = func(*args, **(kwargs or {}))
        for tensor in _tensors(found):
            if _place(tensor) not in given:
                self._count(tensor)
        return found

    def _count(self, tensor: Tensor) -> None:
        storage, place = tensor.untyped_storage(), _place(tensor)
        if place in self._known or not storage.nbytes():
            return
        size = storage.nbytes()

        def freed(_: object) -> None:
            self.live -= size
            self._known.pop(place, None)

        self._known[place] = weakref.ref(storage, freed)
        self.live += size
        self.peaks[-1] = max(self.peaks[-1], self.live)


def _place(tensor: Tensor) -> int:
    """Return what identifies the memory of a tensor while it is alive."""
    return int(tensor.untyped_storage()._cdata)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
