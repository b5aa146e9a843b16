"""Counts of the spikes that differ between two recordings of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeguard.analysis.membrane import bin_counts, default_edges, is_near
from spikeguard.neurons.trace import LayerTrace

__all__ = ["BANDS", "count_flips", "flips_of", "joined"]

BANDS = default_edges(span=3, per_unit=5)
"""Edges of the bands of distances whose flip rates have intervals."""

_SUMMED = ("bins", "steps")  # counts over images; the others are of each image


def flips_of(clean: LayerTrace, other: LayerTrace) -> Tensor:
    """Return the change of every spike: 1 for a new one, -1 for a lost one, else 0.

    Args:
        clean: Trace of a layer on clean images.
        other: Trace of the same layer on other images, with the same noise.

    Returns:
        int8 [T, B, *N].
    """
    return (other.spikes > 0).to(torch.int8) - (clean.spikes > 0).to(torch.int8)


def count_flips(
    clean: LayerTrace, other: LayerTrace, x: Tensor, margin: float
) -> dict[str, NDArray[Any]]:
    """Return the counts of one layer and one batch.

    Args:
        clean: Trace on clean images.
        other: Trace on other images, with the same noise.
        x: Relative distances of the clean potentials to the threshold [T, B, *N].
        margin: Distance below which a potential is near the threshold.

    Returns:
        "bins" [3, bins]: potentials, new and lost spikes by clean distance; "steps" [T]: flips;
        "bands" [B, 2, bands]: potentials and flips; and of every image [B]: "whole" potentials,
        "near" ones, "flips", "near_flips", "new" spikes, and "squares" of the shift in v_th.
    """
    change = flips_of(clean, other)
    flipped, near = change != 0, is_near(x, margin)
    image = torch.arange(x.shape[1], device=x.device).view(-1, *[1] * (x.ndim - 2)).expand(x.shape)

    def of_image(mask: Tensor) -> NDArray[Any]:
        return np.asarray(mask.transpose(0, 1).flatten(1).sum(1, dtype=torch.float64).cpu())

    fine = default_edges()
    return {
        "bins": np.stack(
            [bin_counts(x, fine), *(bin_counts(x[change == s], fine) for s in (1, -1))]
        ),
        "steps": flipped.flatten(1).sum(1).cpu().numpy(),
        "bands": np.stack(
            [
                bin_counts(x, BANDS, image, x.shape[1]),
                bin_counts(x[flipped], BANDS, image[flipped], x.shape[1]),
            ],
            1,
        ),
        "whole": np.full(x.shape[1], x[:, 0].numel(), dtype=np.float64),
        "near": of_image(near),
        "flips": of_image(flipped),
        "near_flips": of_image(flipped & near),
        "new": of_image(change > 0),
        "squares": of_image(((other.v - clean.v) / clean.v_th).double().square()),
    }


def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the counts of all batches of one layer."""
    return {
        name: np.sum([part[name] for part in parts], 0)
        if name in _SUMMED
        else np.concatenate([part[name] for part in parts])
        for name in parts[0]
    }
