"""Compiled splitmix64: uniform numbers of many streams, bit-equal to those of kernels/splitmix."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.kernels.cpu.library import Draws, call, why_not

__all__ = ["available", "pairs", "uniform"]


def available(device: torch.device) -> bool:
    """Whether the library computes the numbers on this device."""
    return device.type == "cpu" and why_not() is None


def uniform(state: Tensor, first: int, count: int) -> Tensor:
    """Return float32 numbers in [0, 1) [B, count], the upper 24 bits of each 64."""
    return _drawn(state, first, count, None)


def pairs(state: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Return 1 - u in (0, 1] and 2 pi w, both [B, count]; u has the upper, w the lower bits."""
    angle = _room(state, count)
    return _drawn(state, first, count, angle), angle


def _drawn(state: Tensor, first: int, count: int, angle: Tensor | None) -> Tensor:
    numbers, state = _room(state, count), state.contiguous()
    task = Draws(streams=len(state), count=count, first=first, state=state.data_ptr())
    task.numbers = numbers.data_ptr()
    task.angle = None if angle is None else angle.data_ptr()
    call("draw", task, torch.float32)
    return numbers


def _room(state: Tensor, count: int) -> Tensor:
    """Return uninitialised float32 numbers [B, count], whatever torch's defaults are."""
    return torch.empty(len(state), count, dtype=torch.float32, device=state.device)
