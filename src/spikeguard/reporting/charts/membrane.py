"""Histograms of membrane potentials around the threshold; all networks share the same axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spikeguard.analysis.membrane import NEAR, MembraneHistogram
from spikeguard.reporting import formatting
from spikeguard.reporting.charts.base import INK, PAPER, Chart, Look, blank, tint
from spikeguard.reporting.readers.collect import Network

__all__ = ["membranes"]

_TAIL = 0.005  # share of potentials that may be outside the chart on either side


def membranes(networks: Sequence[Network], look: Mapping[str, Look]) -> dict[str, Chart]:
    """Return one histogram for each network with measured potentials, by label."""
    found = {n.label: n.membrane for n in networks if n.membrane is not None}
    spans = [_span(histogram) for histogram in found.values()]
    span = [min((low for low, _ in spans), default=-1), max((high for _, high in spans), default=1)]
    top = 1.08 * max((_shares(h, span)[1].max() for h in found.values()), default=1.0)
    return {
        label: _chart(label, histogram, look, span=span, top=top)
        for label, histogram in found.items()
    }


def _chart(
    label: str,
    histogram: MembraneHistogram,
    look: Mapping[str, Look],
    *,
    span: list[float],
    top: float,
) -> Chart:
    x, y, width = _shares(histogram, span)
    colour = look[label].colour
    figure = blank(height=240)
    figure.add_bar(
        x=x,
        y=y,
        width=width,
        marker={
            "color": [colour if near else tint(colour, 0.4) for near in np.abs(x) < NEAR],
            "line": {"width": 0},
        },
        hovertemplate="%{x:.3f}: %{y:.2f} %<extra></extra>",
    )
    figure.add_vline(0, line={"color": INK, "width": 1.5, "dash": "dash"})
    figure.add_annotation(
        x=0, y=1, yref="paper", text="threshold", showarrow=False, xanchor="left", xshift=5
    )
    for beyond, end, arrow in zip(_outside(histogram, span), span, ("◂ {}", "{} ▸"), strict=True):
        if beyond > _TAIL:
            figure.add_annotation(
                x=end,
                y=0,
                yshift=10,
                text=arrow.format(formatting.percent(beyond)),
                showarrow=False,
                xanchor="left" if end == span[0] else "right",
                bgcolor=PAPER,
            )
    figure.update_layout(bargap=0)
    figure.update_xaxes(
        title_text="Membrane potential, v / v<sub>th</sub> − 1", range=span, dtick=1, tick0=0
    )
    figure.update_yaxes(title_text="Potentials (% per bin)", range=[0, top])
    share = formatting.percent(histogram.near_threshold)
    return Chart(
        f"membrane-{list(look).index(label)}",
        label,
        f"Histogram of the membrane potentials of {label}; {share} are within {NEAR:g} v_th of "
        "the threshold.",
        figure,
    )


def _span(histogram: MembraneHistogram) -> tuple[float, float]:
    """Return finite limits, at least -1.25 .. 0.5, that contain all but small tails."""
    done = np.cumsum(histogram.pooled.counts) / histogram.pooled.potentials
    first, last = np.searchsorted(done, [_TAIL, 1 - _TAIL])
    inner = histogram.edges[1:-1]
    low, high = np.clip(histogram.edges[[first, last + 1]], inner[0], inner[-1])
    return min(float(low), -1.25), max(float(high), 0.5)


def _outside(histogram: MembraneHistogram, span: Sequence[float]) -> tuple[float, float]:
    """Return the shares of potentials below and above the limits of the chart."""
    counts, edges = histogram.pooled.counts, histogram.edges
    total = histogram.pooled.potentials
    below, above = counts[edges[1:] <= span[0]].sum(), counts[edges[:-1] >= span[1]].sum()
    return float(below / total), float(above / total)


def _shares(
    histogram: MembraneHistogram, span: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return centres, shares in per cent and widths of the finite bins inside ``span``."""
    inner = histogram.edges[1:-1]
    shares = 100 * histogram.pooled.counts[1:-1] / histogram.pooled.potentials
    centres, widths = (inner[1:] + inner[:-1]) / 2, np.diff(inner)
    inside = (centres > span[0]) & (centres < span[1])
    return centres[inside], shares[inside], widths[inside]
