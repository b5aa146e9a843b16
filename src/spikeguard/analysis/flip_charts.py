"""Charts of the analysis ``flips``: flips and flip rates by distance, shares by layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spikeguard.analysis.layer_lines import ALL, layer_plot, stepped
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Rule, Series
from spikeguard.analysis.texts import listed, percent, setting_of

__all__ = ["flip_plots"]

_FAR = 2.0  # end of the axis of distances, in v_th
_FEW = 0.0005  # bands with a smaller share of the potentials are left out of the chart


def flip_plots(found: Mapping[str, Measurement], result: str) -> list[Plot]:
    """Return flips by distance, flip rates by distance, and shares by layer."""
    margins, near = {m.settings["margin"] for m in found.values()}, setting_of(found, "margin")
    within, rates, near_and_far = [], [], {}
    for label, m in found.items():
        distance, flips = _within(m, m["flips"].sum((0, 1)))
        _, potentials = _within(m, m["potentials"].sum(0))
        within.append(Series(distance, flips, label, label))
        within.append(Series(distance, potentials, f"{label}, all potentials", label, dash="dot"))
        middle, rate, low, high = _rates(m)
        both = (percent(m.number(rate, layers=ALL)) for rate in ("rate_near", "rate_far"))
        near_and_far[label] = " and ".join(both)
        rates.append(Series(middle, rate, label, label, low, high))
    return [
        Plot(
            "within",
            "Flips and potentials within a distance of the threshold",
            f"{result}. Dotted lines: share of all potentials within the distance.",
            within,
            x_title="Distance of the clean potential, |v / v_th - 1|, at most",
            y_title="Share (%)",
            x_range=(0, _FAR),
            y_range=(0, 100),
            rules=tuple(Rule(margin, f"{margin:g} v_th") for margin in sorted(margins)),
            width="full",
            height=300,
        ),
        Plot(
            "rate",
            "Flip rate by distance",
            f"Of the spikes with a clean potential within {near} v_th of the threshold, and of "
            f"the others, so many flip: {listed(near_and_far)}. Left of the threshold flips are "
            "new spikes, right of it lost ones.",
            rates,
            x_title="Distance to the threshold, v / v_th - 1",
            y_title="Spikes that flip (%)",
            rules=(Rule(0, "threshold"),),
        ),
        layer_plot(
            found,
            lambda m: {"": stepped(m, "near_flips")},
            name="layers",
            title=f"Flips within {near} v_th of the threshold, by layer",
            summary=f"{result}.",
            y_title="Flips near the threshold (%)",
            width="half",
        ),
    ]


def _within(m: Measurement, counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Return distances, and the per cent of counts [bins] at most so far from the threshold."""
    edges = m.axes["bin"]
    zero = int(np.flatnonzero(edges == 0)[0])
    size = min(zero - 1, len(edges) - zero - 1)  # bins on either side between finite edges
    folded = counts[zero : zero + size] + counts[zero - size : zero][::-1]
    share = 100 * np.cumsum(folded) / counts.sum() if counts.sum() else np.full(size, np.nan)
    distance = edges[zero + 1 : zero + size + 1]
    shown = distance <= _FAR
    return np.append(0.0, distance[shown]), np.append(0.0, share[shown])


def _rates(m: Measurement) -> tuple[NDArray[np.float64], ...]:
    """Return the middles of the bands between finite edges, and their rates with intervals."""
    start = m.axes["band"]
    middle = (start[1:-1] + start[2:]) / 2
    places = np.searchsorted(start, m.axes["bin"] + 1e-9, side="right") - 1
    counts = np.bincount(places, m["potentials"].sum(0), minlength=len(start))[1:-1]
    shown = counts > _FEW * counts.sum()
    lines = (
        100 * m[name][1:-1][shown] for name in ("band_rate", "band_rate_low", "band_rate_high")
    )
    return middle[shown], *lines
