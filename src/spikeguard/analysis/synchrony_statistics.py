"""Statistics of the analysis ``synchrony``: levels, changes and moments of correlations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeguard.analysis.correlation import CONVENTIONS, moments
from spikeguard.analysis.intervals import mean_interval
from spikeguard.analysis.spike_trains import TIMES, LayerTrains

__all__ = ["CHANGES", "CONDITIONS", "MAPS", "statistics", "thinned"]

CONDITIONS = ("clean", "failure", "control")
CHANGES = (("failure", "clean"), ("control", "clean"), ("failure", "control"))
MAPS = tuple((condition, time) for condition in CONDITIONS[:2] for time in TIMES)

_CELLS = 32  # neurons of the matrices that are stored


def statistics(
    layers: Sequence[LayerTrains], matched: NDArray[np.bool_]
) -> dict[str, tuple[ArrayLike, Sequence[str], str, str]]:
    """Return the quantities by layer, for ``Measurement.of``.

    Args:
        layers: The layers.
        matched: For every image that failed, whether it has a control.
    """
    shape = (len(layers), len(CONDITIONS), len(CONVENTIONS), len(TIMES))
    level = np.full((3, *shape[:2], 3, len(TIMES)), np.nan)  # mean, low, high
    change = np.full((3, len(layers), len(CHANGES), 2, len(TIMES)), np.nan)
    found = {name: np.full(shape, np.nan) for name in ("skewness", "kurtosis", "p99", "above")}
    pairs = np.zeros(shape, dtype=np.int64)
    defined = np.zeros(shape[:3], dtype=np.int64)
    for n, layer in enumerate(layers):
        for t, time in enumerate(TIMES):
            images = {c: layer.found[c, time].per_image() for c in CONDITIONS}
            for c, condition in enumerate(CONDITIONS):
                level[:, n, c, :, t] = _means(images[condition])
                defined[n, c] = (~np.isnan(images[condition][:, :2])).sum(0)
                for k, matrix in enumerate(layer.found[condition, time].matrix().values()):
                    values = matrix[np.triu_indices(len(matrix), 1)]
                    seen = moments(values[~np.isnan(values)])
                    pairs[n, c, k, t] = seen.values
                    for name, into in found.items():
                        into[n, c, k, t] = getattr(seen, name)
            alike = {
                **{c: images[c][matched] for c in CONDITIONS[:2]},
                "control": images["control"],
            }
            for d, pair in enumerate(CHANGES):
                after, before = ((alike if "control" in pair else images)[c] for c in pair)
                change[:, n, d, :, t] = _means((after - before)[:, :2])
    kept = [len(matched), len(matched), int(matched.sum())]
    by, of = ["layer", "condition", "convention", "time"], "correlations of the mean matrix"
    out: dict[str, tuple[ArrayLike, Sequence[str], str, str]] = {
        "images": (kept, ["condition"], "images", "whose spike trains are correlated"),
        "defined": (defined, by[:3], "images", "with at least one defined pair"),
        "pairs": (pairs, by, "pairs", "of the mean matrix that are defined"),
    }
    for e, end in enumerate(("", "_low", "_high")):
        what = ("mean over images", "lower end, 95 %", "upper end, 95 %")[e]
        out |= {
            f"undefined{end}": (level[e, :, :, 2, 0], by[:2], "share", f"undefined pairs, {what}"),
            f"mean{end}": (level[e, :, :, :2], by, "1", f"correlation of a pair, {what}"),
            f"change{end}": (
                change[e],
                ["layer", "change", *by[2:]],
                "1",
                f"change of the correlation of a pair, same images, {what}",
            ),
        }
    return out | {name: (values, by, "1", f"{name}, {of}") for name, values in found.items()}


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean and 95 % interval of the columns of values [n, K], [3, K]; NaN is left out."""
    return np.array([mean_interval(column) for column in values.T]).T


def thinned(layer: LayerTrains | None, condition: str, time: str) -> NDArray[np.float32]:
    """Return the mean matrix of evenly spaced neurons, at most 32; undefined pairs left out."""
    if layer is None:
        return np.zeros((0, 0), dtype=np.float32)
    cells = min(_CELLS, len(layer.chosen))
    chosen = np.linspace(0, len(layer.chosen) - 1, cells).round().astype(int)
    matrix = layer.found[condition, time].matrix()["left out"]
    if not len(matrix):  # no image in this condition
        return np.full((cells, cells), np.nan, dtype=np.float32)
    return np.asarray(matrix[np.ix_(chosen, chosen)], dtype=np.float32)
