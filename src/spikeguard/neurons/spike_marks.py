"""The mark by which a layer knows that all it is given are spikes, and may be stored as bytes."""

from __future__ import annotations

from torch import Tensor

__all__ = ["are_spikes", "mark_spikes"]

_MARK = "spikes_at_version"


def mark_spikes(spikes: Tensor) -> Tensor:
    """Return the tensor, marked as one whose entries are all 0 or 1 (see ``are_spikes``)."""
    if not spikes.is_inference():  # such tensors count no versions
        spikes.__dict__[_MARK] = spikes._version
    return spikes


def are_spikes(x: Tensor) -> bool:
    """Whether ``x`` is what a neuron returned, unchanged: every entry is 0 or 1."""
    return _MARK in x.__dict__ and bool(x.__dict__[_MARK] == x._version)
