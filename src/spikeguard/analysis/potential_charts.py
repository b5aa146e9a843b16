"""Charts of the analysis ``potentials``: histograms, maps by layer and step, shares by layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spikeguard.analysis.layer_lines import ALL, layer_plot, stepped
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Heat, Plot, Rule, Series
from spikeguard.analysis.texts import percent, setting_of

__all__ = ["potential_plots"]

_TAIL = 0.005  # share of potentials that may be outside a chart on either side
_ROWS = 32  # rows of a map; beyond, steps are pooled
_X_TITLE = "Distance to the threshold, v / v_th - 1"
Floats = NDArray[np.float64]


def potential_plots(found: Mapping[str, Measurement], result: str) -> list[Plot]:
    """Return a histogram and a map of every network on shared axes, and shares by layer."""
    low, high = _span(found)
    outlines = {label: _percents(m["counts"].sum((1, 2))) for label, m in found.items()}
    maps = {label: _map(m) for label, m in found.items()}
    top = 1.08 * max(float(each[:, 1:-1].max()) for each in outlines.values())
    brightest = float(np.quantile(np.concatenate([g.ravel() for _, g in maps.values()]), 0.985))
    plots = []
    for place, (label, m) in enumerate(found.items()):
        x = _centres(m)
        shown = (x > low) & (x < high)
        share = percent(m.number("near", input="clean", layers=ALL))
        margin = m.settings["margin"]
        outside = percent(1 - float(outlines[label][0][1:-1][shown].sum()) / 100)
        finding = (
            f"{label}: {share} of the clean potentials are within {margin:g} v_th of the "
            f"threshold, {outside} outside the chart"
        )
        common = {"x_title": _X_TITLE, "network": label}
        marks = [
            Series(x[shown], y[1:-1][shown], name, label, kind="steps", dash=dash)  # type: ignore[arg-type]
            for y, name, dash in zip(
                outlines[label], m.axes["input"].tolist(), ("solid", "dot"), strict=True
            )
        ]
        plots.append(
            Plot(
                f"histogram-{place}",
                "Potentials, all layers and steps",
                f"{finding}.",
                marks,
                y_title="Potentials (% in 0.05 v_th)",
                x_range=(low, high),
                y_range=(0, top),
                rules=(Rule(0, "threshold"),),
                **common,  # type: ignore[arg-type]
            )
        )
        names, grid = maps[label]
        plots.append(
            Plot(
                f"map-{place}",
                "Clean potentials by layer and step",
                f"Every row is the histogram of one layer at one step. {finding}.",
                [Heat(grid[:, shown], x[shown], names, "% in 0.05 v_th", 0, brightest)],
                rules=(Rule(0),),
                **common,  # type: ignore[arg-type]
            )
        )
    lines = layer_plot(
        found,
        lambda m: {word: stepped(m, "near", input=word) for word in m.axes["input"].tolist()},
        name="layers",
        title=f"Potentials within {setting_of(found, 'margin')} v_th of the threshold, by layer",
        summary=f"{result}.",
        y_title="Potentials near the threshold (%)",
    )
    return [*plots, lines]


def _centres(m: Measurement) -> Floats:
    """Return the middle of every bin but the two open ones."""
    edges = m.axes["bin"][1:]
    return np.asarray((edges[:-1] + edges[1:]) / 2, dtype=np.float64)


def _percents(counts: NDArray[np.int64]) -> Floats:
    return np.asarray(100 * counts / np.maximum(1, counts.sum(-1, keepdims=True)))


def _map(m: Measurement) -> tuple[list[str], Floats]:
    """Return names and clean histograms [rows, bins], a row for a layer and step."""
    counts, layers, steps = m["counts"][0], m.axes["layer"].tolist(), m.axes["step"].tolist()
    if counts.shape[0] * counts.shape[1] > _ROWS:
        return layers, _percents(counts.sum(1))[:, 1:-1]
    names = [f"{layer}, {step}" for layer in layers for step in steps]
    return names, _percents(counts).reshape(len(names), -1)[:, 1:-1]


def _span(found: Mapping[str, Measurement]) -> tuple[float, float]:
    """Return the limits outside of which no network has a notable share of potentials."""
    lows, highs = [-1.5], [0.5]
    for m in found.values():
        edges = m.axes["bin"][1:]  # the finite ones
        for counts in m["counts"].sum((1, 2)):
            below = (np.cumsum(counts) / counts.sum())[:-1]  # share below each of them
            lows.append(max(edges[below <= _TAIL], default=edges[0]))
            highs.append(min(edges[below >= 1 - _TAIL], default=edges[-1]))
    return float(min(lows)), float(max(highs))
