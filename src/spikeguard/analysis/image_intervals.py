"""Shares of counts over images with 95 % intervals; an image is drawn, never a neuron alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from spikeguard.rng import stream
from spikeguard.system.intervals import wilson

__all__ = ["HOW", "Share", "change_of_share", "share_of", "share_quantities"]

HOW = "95 % intervals: bootstrap over images"
_RESAMPLES = 1000
_AT_ONCE = 100  # resamples in one product of matrices
_QUANTILES = (0.025, 0.975)
Floats = NDArray[np.float64]


class Share(NamedTuple):
    """Shares with the ends of their 95 % intervals; NaN where there is nothing to divide by."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def share_of(part: ArrayLike, whole: ArrayLike, *, seed: int = 0) -> Share:
    """Return sum of part / sum of whole over images, with bootstrap intervals.

    Neurons of one image are not independent, so whole images are drawn with replacement: 1000
    resamples, percentiles 2.5 and 97.5. Where the share is 0 or 1, or there is one image, resamples
    do not vary; there the interval is Wilson's with a trial for each image, which is too wide
    rather than too narrow.

    Args:
        part: Counts of every image [images, ...], each at most ``whole``.
        whole: Counts of every image, of a shape that broadcasts to that of ``part``.
        seed: Seed of the resamples; two calls of one seed and number of images draw the same ones.

    Returns:
        Shares of the shape of ``part`` without its first axis.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Wilson, JASA 1927.
    """
    top, bottom, shape = _arrays(part, whole)
    value = _ratio(top.sum(0), bottom.sum(0))
    low, high = _percentiles(_ratio(_resampled(top, seed), _resampled(bottom, seed)))
    trials = (bottom > 0).sum(0)
    for place in np.flatnonzero(np.isfinite(value) & ((trials == 1) | (value <= 0) | (value >= 1))):
        n = int(trials[place])
        low[place], high[place] = wilson(float(value[place]) * n, n)
    return Share(value.reshape(shape), low.reshape(shape), high.reshape(shape))


def share_quantities(
    name: str, part: ArrayLike, whole: ArrayLike, axes: Sequence[str], about: str, seed: int
) -> dict[str, tuple[ArrayLike, Sequence[str], str, str]]:
    """Return a share and the ends of its interval as quantities of ``Measurement.of``.

    Args:
        name: Name of the share; those of the ends have ``_low`` and ``_high`` after it.
        part: See :func:`share_of`, as ``whole`` and ``seed``.
        whole: Counts of every image.
        axes: Axes of the share.
        about: What it is.
        seed: Seed of the resamples.
    """
    share = share_of(part, whole, seed=seed)
    return {
        name: (share.value, axes, "share", about),
        f"{name}_low": (share.low, axes, "share", f"lower end of the 95 % interval of {name}"),
        f"{name}_high": (share.high, axes, "share", f"upper end of the 95 % interval of {name}"),
    }


def change_of_share(
    part: ArrayLike,
    whole: ArrayLike,
    first_part: ArrayLike,
    first_whole: ArrayLike,
    *,
    seed: int = 0,
) -> Share:
    """Return the relative change of a share from that of another network, with its interval.

    The change is share / first share - 1. Networks measured on the same number of images are
    resampled together: their images are the same ones. Arguments as for :func:`share_of`.
    """
    top, bottom, shape = _arrays(part, whole)
    first_top, first_bottom, _ = _arrays(first_part, first_whole)
    counts = (top, bottom, first_top, first_bottom)
    value = _change(*(each.sum(0) for each in counts))
    low, high = np.full((2, *value.shape), np.nan)
    if min(len(top), len(first_top)) > 1:
        low, high = _percentiles(_change(*(_resampled(each, seed) for each in counts)))
    return Share(value.reshape(shape), low.reshape(shape), high.reshape(shape))


def _arrays(part: ArrayLike, whole: ArrayLike) -> tuple[Floats, Floats, tuple[int, ...]]:
    """Return both as [images, counts], and the shape of the counts of one image."""
    top = np.asarray(part, dtype=np.float64)
    if top.ndim < 1 or len(top) < 1:
        raise ValueError("share_of: counts are [images, ...] with at least one image.")
    bottom = np.broadcast_to(np.asarray(whole, dtype=np.float64), top.shape)
    return top.reshape(len(top), -1), bottom.reshape(len(top), -1), top.shape[1:]


def _ratio(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)
    return found


def _change(part: Floats, whole: Floats, first_part: Floats, first_whole: Floats) -> Floats:
    changed: Floats = _ratio(_ratio(part, whole), _ratio(first_part, first_whole)) - 1
    return changed


def _resampled(counts: Floats, seed: int) -> Floats:
    """Return the sums of counts [images, counts] over every resample [1000, counts]."""
    n = len(counts)
    drawn = torch.randint(n, (_RESAMPLES, n), generator=stream(seed, "bootstrap", n)).numpy()
    sums = np.empty((_RESAMPLES, counts.shape[1]))
    for start in range(0, _RESAMPLES, _AT_ONCE):
        chosen = drawn[start : start + _AT_ONCE]
        times = np.stack([np.bincount(each, minlength=n) for each in chosen])
        sums[start : start + _AT_ONCE] = times @ counts
    return sums


def _percentiles(values: Floats) -> tuple[Floats, Floats]:
    """Return the ends over the first axis; resamples with nothing to divide by do not count."""
    ends = np.full((2, *values.shape[1:]), np.nan)
    some = np.isfinite(values).any(0)
    ends[:, some] = np.nanquantile(values[:, some], _QUANTILES, axis=0)
    return ends[0], ends[1]
