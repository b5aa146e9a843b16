"""Flips of spikes by Gaussian noise: counts, and replays of a layer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeguard.analysis.theory import flip_probability
from spikeguard.kernels.reference import reference
from spikeguard.neurons.trace import LayerTrace

__all__ = ["BANDS", "count_flips", "replayed"]

BANDS = np.arange(0, 4, 0.25)
"""Starts of the bands of |v - v_th| / sigma; the last one is open."""


def replayed(seen: LayerTrace, noise: Tensor | None) -> Tensor:
    """Return the potentials before reset of a layer that gets its recorded current and a noise.

    Args:
        seen: The layer's trace; its leak factor is known.
        noise: Noise of every step [T, B, *N], which stays in the membrane; or None.

    Returns:
        Potentials [T, B, *N], noise included.

    Raises:
        ValueError: If the trace has no leak factor, as that of a foreign neuron.
    """
    if seen.decay is None:
        raise ValueError("replayed: the trace has no leak factor; pass one of the own neurons.")
    decay = torch.as_tensor(seen.decay, dtype=seen.v.dtype, device=seen.v.device)
    v_th = seen.v_th - seen.v_reset  # the recurrence rests at 0
    firing = reference(
        seen.current, decay, seen.gate, noise, v_th, seen.reset, True, seen.surrogate
    )
    assert firing.v is not None
    return firing.v + seen.v_reset


@torch.no_grad()
def count_flips(
    seen: LayerTrace, sigma: float, draws: Tensor, given: bool
) -> dict[str, NDArray[np.float64]]:
    """Return the counts of one layer and one batch, by image.

    Args:
        seen: The layer's trace.
        sigma: Standard deviation of the noise.
        draws: Noise [T, B, *N], used if ``given``; the layer's own noise otherwise.
        given: Whether the noise is added to that of the layer.

    Returns:
        Sums over the neurons: "whole" potentials and "close" ones, nearer than sigma; "predicted"
        and counted "flips" [B, 2, T], by the noise of the step, and by that of all steps so far;
        "variance" of the flips by the noise of the step; and "bands" [B, 4, bands] with the
        potentials, predicted flips, counted flips and distances of every band.
    """
    distance = seen.v_before_noise - seen.v_th
    noise = draws if given else seen.noise
    assert noise is not None
    after = distance + noise if given else seen.v - seen.v_th
    chance = flip_probability(distance, sigma)
    flipped = (after >= 0) != (distance >= 0)
    chances, flips = [chance], [flipped]
    if seen.decay is not None:
        free, noisy = (replayed(seen, each) - seen.v_th for each in (None, noise))
        chances.append(flip_probability(free, sigma))
        flips.append((noisy >= 0) != (free >= 0))
    else:
        chances.append(torch.full_like(chance, torch.nan))
        flips.append(torch.full_like(chance, torch.nan))
    far = distance.double().abs() / sigma
    return {
        "whole": _of_steps(torch.ones_like(chance)),
        "predicted": np.stack([_of_steps(each) for each in chances], 1),
        "flips": np.stack([_of_steps(each) for each in flips], 1),
        "variance": _of_steps(chance * (1 - chance)).sum(1),
        "close": _of_steps(far < 1).sum(1),
        "bands": _of_bands(far, torch.ones_like(chance), chance, flipped, far),
    }


def _of_steps(values: Tensor) -> NDArray[np.float64]:
    """Return the sums [B, T] of values [T, B, *N]."""
    return np.asarray(values.flatten(2).sum(2, dtype=torch.float64).T.cpu())


def _of_bands(far: Tensor, *values: Tensor) -> NDArray[np.float64]:
    """Return the sums of each of some values in every band of distances: [B, values, bands]."""
    starts = torch.as_tensor(BANDS, device=far.device)
    B, bands = far.shape[1], len(BANDS)
    place = torch.bucketize(far.contiguous(), starts, right=True) - 1
    image = torch.arange(B, device=far.device).view(-1, *[1] * (far.ndim - 2))
    flat = (place + bands * image).flatten()
    sums = (torch.bincount(flat, each.double().flatten(), minlength=bands * B) for each in values)
    return np.stack([each.view(B, bands).cpu().numpy() for each in sums], 1)
