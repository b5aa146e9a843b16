"""A mark on tensors that hold only spikes, so that the next layer may save them as bytes."""

from __future__ import annotations

from torch import Tensor

__all__ = ["are_spikes", "mark_spikes"]

_MARK = "spikes_at_version"


def mark_spikes(spikes: Tensor) -> Tensor:
    """Mark a tensor whose entries are all 0 or 1 and return it (see ``are_spikes``)."""
    if not spikes.is_inference():  # inference tensors have no version counter
        spikes.__dict__[_MARK] = spikes._version
    return spikes


def are_spikes(x: Tensor) -> bool:
    """Whether ``x`` was returned by a neuron and not modified since: every entry is 0 or 1."""
    return _MARK in x.__dict__ and bool(x.__dict__[_MARK] == x._version)
