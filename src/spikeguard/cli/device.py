"""The device of a command: the first GPU, or that of its rank, or the CPU."""

from __future__ import annotations

import os

from spikeguard.config.errors import ConfigError
from spikeguard.system.launcher import launched

__all__ = ["device_of"]


def device_of(wanted: str | None) -> str:
    """Return "cuda" or "cpu": the wanted one, else the one that training would choose.

    Ranks on one host take its GPUs in turn. Imports torch.

    Raises:
        ConfigError: If "cuda" is wanted and torch sees no CUDA device.
    """
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError("--device cuda: torch sees no CUDA device; leave it out for the CPU.")
    device = wanted or ("cuda" if there else "cpu")
    found = launched(os.environ)
    if device == "cuda" and found is not None and found.local is not None:
        torch.cuda.set_device(found.local % torch.cuda.device_count())
    return device
