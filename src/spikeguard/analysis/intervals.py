"""Means, medians and ratios of means over images, with 95 % intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeguard.system import intervals
from spikeguard.system.intervals import Z

__all__ = [
    "mean_interval",
    "mean_over_images",
    "median_interval",
    "root_ratio_over_images",
]

Array = NDArray[np.float64]


def mean_over_images(values: NDArray[Any]) -> tuple[Array, Array]:
    """Return the mean over the last axis and half its interval; NaN entries are left out.

    The interval is normal: Z standard errors. Half is NaN below two numbers, both below one.
    """
    known = np.isfinite(values)
    n = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, total / n, np.nan)
        spread = np.where(known, values - mean[..., None], 0.0)
        half = Z * np.sqrt((spread**2).sum(-1) / (n - 1) / n)
    return mean, np.where(n > 1, half, np.nan)


def root_ratio_over_images(above: Array, below: Array) -> tuple[Array, Array]:
    """Return sqrt(sum(above) / sum(below)) over the last axis and half its interval (delta method).

    Args:
        above: Squared errors [..., N], >= 0.
        below: Squared lengths [..., N], >= 0. NaN is returned where all are 0.
    """
    n = above.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = above.sum(-1) / below.sum(-1)
        root = np.sqrt(ratio)
        rest = above - ratio[..., None] * below
        deviation = np.sqrt((rest**2).sum(-1) / max(1, n - 1) / n) / below.mean(-1)
        half = Z * deviation / (2 * root)
    half = np.where(root > 0, half, 0.0)
    return root, np.where(np.isfinite(root) & (n > 1), half, np.nan)


def mean_interval(values: ArrayLike) -> tuple[float, float, float]:
    """Return the mean of numbers [N] and the ends of its interval; NaN entries are left out."""
    known = _known(values)
    return intervals.mean_interval(known) if known else (math.nan,) * 3


def median_interval(values: ArrayLike) -> tuple[float, float, float]:
    """Return the median of numbers [N] and the ends of its interval; NaN entries are left out."""
    known = _known(values)
    return intervals.median_interval(known) if known else (math.nan,) * 3


def _known(values: ArrayLike) -> list[float]:
    numbers = np.asarray(values, dtype=np.float64)
    return [float(each) for each in numbers[~np.isnan(numbers)]]
