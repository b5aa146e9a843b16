"""Why logits change between calls: noise or state."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spikeguard.auditing.context import Context

__all__ = ["source_of_change"]


def source_of_change(context: Context, index: Tensor) -> Literal["noise", "state"]:
    """Distinguish noise from state: noise repeats when the global generator gets the same seed.

    The state of the global generator is restored.
    """
    cuda = [context.device] if context.device.type == "cuda" else []

    def seeded() -> Tensor:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(0)
            return context.logits(index)

    first = seeded()
    context.logits(index, mirrored=True)
    return "noise" if torch.equal(first, seeded()) else "state"
