"""OutOfMemory: the error that says with which batch size memory ran out, and how to go on."""

from __future__ import annotations

__all__ = ["OutOfMemory", "is_out_of_memory"]

_SAID = ("can't allocate memory", "not enough memory", "out of memory")  # torch, on CPU and GPU


class OutOfMemory(RuntimeError):
    """There is too little memory; the message is one line and says how to go on."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python or torch could not allocate memory."""
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
