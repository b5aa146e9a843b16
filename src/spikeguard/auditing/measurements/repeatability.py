"""TODO."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spikeguard.auditing.context import Context

__all__ = ["source_of_change"]


def source_of_change(context: Context, index: Tensor) -> Literal["noise", "state"]:
    """Tell noise from state: noise repeats itself when all generators start from the same numbers.

    The global generator is left where it was.
    """
    cuda = [context.device] if context.device.type == "cuda" else []

    def seeded() -> Tensor:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(0)
            return context.logits(index)

    first = seeded()
    context.logits(index, mirrored=True)
    return "noise" if torch.equal(first, seeded()) else "state"
