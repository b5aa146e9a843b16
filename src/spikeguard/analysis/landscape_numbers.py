"""What a loss landscape is reduced to: means on the grid, roughness and peaks of every image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeguard.analysis.intervals import mean_interval
from spikeguard.analysis.measurement import Measurement

__all__ = [
    "PLACES",
    "coordinates",
    "interval",
    "landscape_measurement",
    "peaks",
    "require_grid",
    "roughness",
]

PLACES = ("clean", "attacked")
_RIPPLE = 1e-4  # rise of a peak over its neighbours, as a share of the grid's range


def require_grid(owner: str, points: int, span: float) -> None:
    """Reject a grid without a centre or without extent.

    Raises:
        ValueError: If points is even or below 3, or span is not positive.
    """
    if points < 3 or points % 2 == 0:
        raise ValueError(f"{owner}: points is odd and >= 3, so that a centre exists, got {points}.")
    if not (span > 0 and math.isfinite(span)):
        raise ValueError(f"{owner}: span is positive, got {span:g}.")


def coordinates(points: int, span: float) -> NDArray[np.float64]:
    """Return the coordinates of a grid along one axis, from -span to span; the middle is 0."""
    half = points // 2
    return np.arange(-half, half + 1) * span / half


def roughness(line: ArrayLike) -> NDArray[np.float64]:
    r"""Return how much losses along a line go back and forth.

    .. math:: R = \frac{\sum_k |\ell_{k+1} - \ell_k|}{\max_k \ell_k - \min_k \ell_k} - 1

    R is 0 where the loss only rises or only falls, 1 for a valley with walls of equal height, and
    grows by up to 2 with every further peak. A factor or shift of the loss does not change it.

    Args:
        line: Losses [..., points].

    Returns:
        R [...]; NaN where the loss is constant.
    """
    losses = np.asarray(line, dtype=np.float64)
    reach = np.ptp(losses, axis=-1)
    whole = np.abs(np.diff(losses, axis=-1)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(reach > 0, np.maximum(whole / reach - 1, 0), np.nan))


def peaks(grid: ArrayLike) -> NDArray[np.float64]:
    """Return the number of local maxima inside a grid.

    A peak is a point, not at the border, whose loss exceeds that of each of its eight neighbours by
    0.01 % of the range of the grid: plateaus and rounding errors are none.

    Args:
        grid: Losses [..., rows, columns].

    Returns:
        Counts [...].
    """
    losses = np.asarray(grid, dtype=np.float64)
    rows, columns = losses.shape[-2:]
    inner = losses[..., 1:-1, 1:-1]
    around = np.full(inner.shape, -np.inf)
    for i in range(3):
        for j in range(3):
            if (i, j) != (1, 1):
                around = np.maximum(around, losses[..., i : rows - 2 + i, j : columns - 2 + j])
    reach = np.ptp(losses, axis=(-2, -1))[..., None, None]
    return np.asarray(
        ((inner - around > _RIPPLE * reach) & (reach > 0)).sum((-2, -1)), dtype=np.float64
    )


def interval(values: ArrayLike) -> tuple[float, float, int]:
    """Return mean, half-width of its normal 95 % interval, and number of values that are not NaN.

    The mean of no value and the half-width of fewer than two are NaN.
    """
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    middle, _, high = mean_interval(kept)
    return middle, high - middle, len(kept)


def landscape_measurement(
    analysis: str,
    settings: Mapping[str, Any],
    axis: NDArray[np.float64],
    losses: NDArray[np.float32],
    right: NDArray[np.bool_],
    unit: str,
    **more: tuple[ArrayLike, Sequence[str], str, str],
) -> Measurement:
    """Return the measurement of a landscape.

    Args:
        analysis: Name of the analysis.
        settings: Its settings.
        axis: Coordinates along both directions [points].
        losses: Cross-entropy [places, images, along, across].
        right: Whether the prediction is correct, of the same shape.
        unit: Unit of the coordinates.
        more: Further quantities.
    """
    middle = len(axis) // 2
    lines = np.stack(
        [losses[..., middle], losses[..., middle, :]], 1
    )  # [places, 2, images, points]
    each, grid = ("place", "image"), ("place", "along", "across")
    return Measurement.of(
        analysis,
        settings,
        losses.shape[1],
        {
            "place": PLACES,
            "along": axis,
            "across": axis,
            "direction": ("gradient", "random"),
            "image": np.arange(losses.shape[1]),
        },
        loss=(losses.mean(1, dtype=np.float64), grid, "nats", f"mean loss, axes in {unit}"),
        accuracy=(right.mean(1, dtype=np.float64), grid, "share", "images classified correctly"),
        centre=(losses[..., middle, middle], each, "nats", "loss at the centre of the grid"),
        held=(right.mean((2, 3)), each, "share", "grid points with the correct class"),
        roughness=(
            roughness(lines),
            ("place", "direction", "image"),
            "1",
            "variation of the loss over its range, less 1, on the line through the centre",
        ),
        peaks=(peaks(losses), each, "1", "local maxima inside the grid"),
        **more,
    )
