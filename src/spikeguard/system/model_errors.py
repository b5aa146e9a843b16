"""Errors of a model's own code, apart from those of the code that calls it."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import nn

from spikeguard.system.out_of_memory import is_out_of_memory

__all__ = ["is_model_error"]

_USUAL = (RuntimeError, ValueError, IndexError, TypeError)  # of torch, in a backward pass too


def is_model_error(error: Exception) -> bool:
    """Return whether an error may come from a model and is not a lack of memory.

    Any error does that was raised inside the ``forward`` of a module; elsewhere only those that
    torch raises for a tensor that does not fit. An assertion of the calling code is none.
    """
    if isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error):
        return False
    return isinstance(error, _USUAL) or _raised_in_forward(error.__traceback__)


def _raised_in_forward(place: TracebackType | None) -> bool:
    while place is not None:
        frame = place.tb_frame
        first = next(iter(frame.f_code.co_varnames), "")  # "self", under any name
        if frame.f_code.co_name == "forward" and isinstance(frame.f_locals.get(first), nn.Module):
            return True
        place = place.tb_next
    return False
