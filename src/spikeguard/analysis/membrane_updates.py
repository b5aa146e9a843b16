"""Membrane updates of a pass, as NeuroBench counts them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from spikeguard.analysis.activity import settled
from spikeguard.analysis.attacked import recorded
from spikeguard.analysis.base import Batch
from spikeguard.models.adapters.foreign_neuron import ForeignError
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.neurons.modes import record
from spikeguard.neurons.trace import LayerTrace

__all__ = ["membrane_updates", "updates_of"]


def membrane_updates(trace: Mapping[str, LayerTrace]) -> torch.Tensor:
    """Return the membrane updates of every image of a pass, int64 [B], as NeuroBench counts them.

    All neurons in the first step; later each neuron whose potential after the reset differs from
    that of the step before.
    """
    found = torch.zeros(0, dtype=torch.int64)
    for layer in trace.values():
        u = layer.u.detach().flatten(2)
        moved = (u[1:] != u[:-1]).sum((0, 2)) + u.shape[2]
        found = moved if not len(found) else found + moved
    return found


def updates_of(model: nn.Module, batch: Batch, seed: int) -> list[float]:
    """Run a batch and return the membrane updates of its images; not a number where unknown."""
    x = in_dtype_of(model, batch.x)
    with recorded(model, batch, seed):
        settled(model, x)
        try:
            with record(model) as trace:
                model(x)
            found = membrane_updates(trace)
            return found.tolist() if len(found) else [np.nan] * len(x)
        except ForeignError:
            model(x)
            return [np.nan] * len(x)
