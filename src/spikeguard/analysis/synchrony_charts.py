"""Charts of the analysis ``synchrony``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Heat, Plot, Series
from spikeguard.analysis.spike_trains import TIMES
from spikeguard.analysis.synchrony_results import (
    Numbers,
    counts,
    quantity_at,
    share_range,
    signs,
)
from spikeguard.system.intervals import wilson

__all__ = ["plots"]

_DEPTH = "Spiking layer, 1 is next to the image"


def plots(found: Mapping[str, Measurement]) -> list[Plot]:
    """Return frames to failure, undefined pairs, changes by layer, and matrices."""
    seen = {label: m for label, m in found.items() if len(m.axes["layer"])}
    charts = [_frames(found)]
    if seen:
        charts += [_undefined(seen), _change(seen, "left out"), _change(seen, "zero")]
        charts += [
            chart for n, (label, m) in enumerate(seen.items()) for chart in _matrices(n, label, m)
        ]
    return charts


def _frames(found: Mapping[str, Measurement]) -> Plot:
    marks = []
    for label, m in found.items():
        right, never = int(m["right"]), int(m["never"])
        failed = [*m["failures"].tolist(), never] if right else []
        ends = np.array([wilson(count, right) for count in failed]).reshape(-1, 2)
        names = [*(f"after {k}" for k in m.axes["frames"].tolist()), "never"][: len(failed)]
        share = [100 * count / right for count in failed]
        low, high = 100 * ends[:, 0], 100 * ends[:, 1]
        marks.append(Series(names, share, label, label, low, high, kind="bars"))
    return Plot(
        "frames",
        "Noise frames until the network fails",
        f"{counts(found)} 95 % intervals.",
        marks,
        x_title="First wrong class after this many noise frames",
        y_title="Images that were right (%)",
        width="half",
        height=300,
    )


def _undefined(found: Mapping[str, Measurement]) -> Plot:
    marks = _styles("clean", "failure")
    for label, m in found.items():
        for condition in ("clean", "failure"):
            y, low, high = (
                100 * quantity_at(m, f"undefined{end}", condition=condition)
                for end in ("", "_low", "_high")
            )
            marks.append(_line(label, y, low, high, solid=condition == "clean"))
    return Plot(
        "undefined",
        "Undefined correlations",
        f"Pairs of neurons with at least one constant spike train, whose correlation is 0/0: "
        f"{share_range(found, 'clean')} on clean images, {share_range(found, 'failure')} at "
        "failure.",
        marks,
        x_title=_DEPTH,
        y_title="Undefined pairs (%)",
        y_range=(0, 100),
        width="half",
        height=300,
    )


def _change(found: Mapping[str, Measurement], convention: str) -> Plot:
    marks = _styles("failure", "control")
    null = np.zeros(max(len(m.axes["layer"]) for m in found.values()))
    for label, m in found.items():
        for change in ("failure", "control"):
            at = {"change": f"{change} - clean", "convention": convention}
            y, low, high = (
                quantity_at(m, f"change{end}", time="observed", **at)
                for end in ("", "_low", "_high")
            )
            marks.append(_line(label, y, low, high, solid=change == "failure"))
            seen = np.abs(np.nan_to_num(quantity_at(m, "change", time="shuffled", **at)))
            null[: len(seen)] = np.maximum(null[: len(seen)], seen)
    depth = np.arange(1, len(null) + 1)
    marks.append(Series(depth, 0 * null, "shuffled time", "", -null, null, dash="dot"))
    told = "left out" if convention == "left out" else "taken as 0"
    clear = np.concatenate([signs(m, "failure - clean", convention) for m in found.values()])
    return Plot(
        "left-out" if convention == "left out" else "as-zero",
        f"Change of the mean correlation, undefined pairs {told}",
        f"At failure, against the same images without noise, the correlation rises in "
        f"{(clear > 0).sum()} of {len(clear)} layers and falls in {(clear < 0).sum()} (95 % "
        "intervals that exclude 0). The control has as many noise frames and does not fail. With "
        f"shuffled time every change is within {null.max():.3f} of 0.",
        marks,
        x_title=_DEPTH,
        y_title="Change of correlation",
        width="half",
        height=340,
    )


def _line(label: str, y: Numbers, low: Numbers, high: Numbers, *, solid: bool) -> Series:
    """Return a line over the layers; the solid one of a network has its entry in the legend."""
    depth = np.arange(1, len(y) + 1)
    name, dash = (label, "solid") if solid else ("", "dash")
    return Series(depth, y, name, label, low, high, dash=dash)  # type: ignore[arg-type]


def _styles(solid: str, dash: str) -> list[Series]:
    """Return entries of the legend for the two line styles."""
    return [Series([1], [np.nan], solid, dash="solid"), Series([1], [np.nan], dash, dash="dash")]


def _matrices(number: int, label: str, m: Measurement) -> list[Plot]:
    """Return one matrix a condition: observed above the diagonal, shuffled below it."""
    charts = []
    grids = dict(zip(m.axes["map"].tolist(), m["matrix"], strict=True))
    for condition in ("clean", "failure"):
        observed, shuffled = (grids[f"{condition}, {time}"] for time in TIMES)
        grid = np.where(np.tri(len(observed), k=-1, dtype=bool), shuffled, observed)
        places = list(range(1, len(grid) + 1))
        pairs = observed[np.triu_indices(len(observed), 1)]
        parts = [(pairs > 0).sum(), (pairs < 0).sum(), np.isnan(pairs).sum()]
        positive, negative, empty = (100 * part / max(1, len(pairs)) for part in parts)
        charts.append(
            Plot(
                f"matrix-{number}-{condition}",
                f"{m['last']}, {condition}",
                f"Correlations of {len(places)} neurons of the layer, averaged over the images in "
                "which they are defined; below the diagonal with shuffled time. Above it "
                f"{positive:.0f} % of the pairs are positive, {negative:.0f} % negative; "
                f"{empty:.0f} % are defined in no image and empty.",
                [Heat(grid, places, places, "correlation", -1, 1, diverging=True, image=True)],
                network=label,
                width="small",
            )
        )
    return charts
