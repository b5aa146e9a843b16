"""Charts of analyses: plots as plain data become plotly figures in the report's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from spikeguard.analysis.plots import Heat, Plot, Series, Surface
from spikeguard.reporting.charts.base import (
    ERROR,
    GRID,
    INK,
    LEGEND,
    SOFT,
    Chart,
    Look,
    blank,
    literal,
    tint,
)

__all__ = ["drawn"]

_MARKERS = 24  # points of a line that all have a marker
_SHAPES = {"steps": "hvh", "cumulative": "hv"}  # bins around their centres; a share from x on
_THINNED = 9  # markers of a longer line, which tell networks apart without colour
# The marker of a network as text, in its bars and their legend.
_SIGNS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲"}
_SIGNS |= {"triangle-down": "▼", "pentagon": "⬟", "star": "★"}
_FEW = 64  # numbers of a chart that are kept in double precision

# Colours that stay apart in grey and for the colour-blind: Cividis, and blue-white-orange.
_SEQUENTIAL = [
    [0.0, "#00224e"],
    [0.25, "#404d6b"],
    [0.5, "#7b7b78"],
    [0.75, "#bbad6b"],
    [1.0, "#fde737"],
]
_DIVERGING = [
    [0.0, "#0b4f8a"],
    [0.25, "#7fb2d9"],
    [0.5, "#f7f7f7"],
    [0.75, "#e9a36c"],
    [1.0, "#a63d00"],
]
_BAR = 88  # pixels that a colour bar takes
# Pale, so that black contour lines and their labels are readable on every cell.
_PALE = [[0.0, "#eef3fa"], [0.5, "#a9c6e0"], [1.0, "#e9a35c"]]
_CONTOUR = "#000000"
_GREYS = [[0.0, "#000000"], [1.0, "#ffffff"]]


def drawn(plot: Plot, look: Mapping[str, Look], *, id: str, caption: str = "") -> Chart:
    """Return a plot as a chart of the report.

    Args:
        plot: The plot.
        look: Colour and marker of every network by its label.
        id: Id of the chart on the page.
        caption: Title of the saved image; the plot's when empty.
    """
    figure = blank(height=plot.height)
    series = [mark for mark in plot.marks if isinstance(mark, Series)]
    named = [mark.name for mark in series if mark.name and mark.legend]
    for mark in plot.marks:
        if isinstance(mark, Heat):
            _add_heat(figure, mark)
        elif isinstance(mark, Surface):
            _add_surface(figure, mark, plot)
        else:
            _add_series(figure, mark, look)
    for rule in plot.rules:
        line = {"color": INK, "width": 1.2, "dash": "dash"}
        if rule.axis == "x":
            figure.add_vline(rule.at, line=line)
            figure.add_annotation(
                x=np.log10(rule.at) if plot.x_log else rule.at,
                y=1,
                yref="paper",
                text=literal(rule.text),
                showarrow=False,
                xanchor="left",
                xshift=5,
            )
        else:
            figure.add_hline(rule.at, line=line)
            figure.add_annotation(
                x=1,
                xref="paper",
                y=np.log10(rule.at) if plot.y_log else rule.at,
                text=literal(rule.text),
                showarrow=False,
                xanchor="right",
                yanchor="bottom",
            )
    figure.update_xaxes(title_text=literal(plot.x_title), range=_range(plot.x_range, plot.x_log))
    figure.update_yaxes(title_text=literal(plot.y_title), range=_range(plot.y_range, plot.y_log))
    if any(np.asarray(mark.x).dtype.kind == "U" for mark in plot.marks):
        figure.update_xaxes(type="category")  # text such as "1" is no number
    if plot.x_log:
        figure.update_xaxes(type="log")
    if plot.y_log:
        figure.update_yaxes(type="log")
    if any(isinstance(mark, Series) and mark.kind == "bars" for mark in plot.marks):
        figure.update_layout(barmode="group", bargap=0.15)
    if len(set(named)) > 1:
        figure.update_layout(showlegend=True, legend=LEGEND)
    return Chart(id, plot.title, plot.summary, figure, caption)


def _range(limits: tuple[float, float] | None, log: bool) -> list[float] | None:
    if limits is None:
        return None
    return [float(np.log10(end)) for end in limits] if log else list(limits)


def _thin(values: ArrayLike) -> np.ndarray[Any, Any]:
    """Return many numbers in single precision, which halves the page; few, and texts, as given."""
    found = np.asarray(values)
    return found.astype(np.float32) if found.dtype.kind == "f" and found.size > _FEW else found


def _add_series(figure: go.Figure, it: Series, look: Mapping[str, Look]) -> None:
    own = look.get(it.network)
    colour = SOFT if own is None else own.colour
    name = literal(it.name)
    x, y = _thin(it.x), _thin(it.y)
    if it.kind == "bars":
        fill = {"solid": colour, "dash": tint(colour, 0.4), "dot": tint(colour, 0.16)}[it.dash]
        sign = "" if own is None else _SIGNS.get(own.shape, "")
        figure.add_bar(
            x=x,
            y=y,
            name=f"{sign} {name}".strip(),
            marker={"color": fill},
            error_y=_errors(it, y),
            text=[sign] * len(y) if sign else None,
            textposition="inside",
            insidetextanchor="start",
            insidetextfont={"color": "#ffffff"},
            textangle=0,
            hoverinfo="x+y+name",
        )
        return
    shape = "circle" if own is None else own.shape
    if it.kind == "points" and it.dash != "solid":
        shape = f"{shape}-open"
    outline = it.kind in _SHAPES or (it.kind == "line" and len(y) > _MARKERS)
    mode = "markers" if it.kind == "points" else "lines+markers"
    figure.add_scatter(
        x=x,
        y=y,
        name=name,
        showlegend=it.legend and bool(name),
        mode=mode,
        line={
            "color": colour,
            "width": 2,
            "dash": it.dash,
            "shape": _SHAPES.get(it.kind, "linear"),
        },
        marker={
            "color": colour,
            "size": 7,
            "symbol": shape,
            "maxdisplayed": _THINNED if outline else 0,  # 0 is all
        },
        error_y=_errors(it, y),
    )


def _errors(it: Series, y: np.ndarray[Any, Any]) -> dict[str, Any] | None:
    if it.low is None or it.high is None:
        return None
    return {
        "type": "data",
        "array": _thin(np.maximum(0, np.asarray(it.high) - y)),
        "arrayminus": _thin(np.maximum(0, y - np.asarray(it.low))),
        "color": ERROR,
        "thickness": 1.1,
        "width": 2.5,
    }


def _add_heat(figure: go.Figure, it: Heat) -> None:
    grid = it.grid
    low = float(np.nanmin(grid)) if it.low is None else it.low
    high = float(np.nanmax(grid)) if it.high is None else it.high
    plain = _PALE if it.levels else _SEQUENTIAL
    scale = _GREYS if it.grey else _DIVERGING if it.diverging else plain
    if it.colours:
        scale, low, high = _steps(it.colours), -0.5, len(it.colours) - 0.5
    bare = it.grey or bool(it.colours)
    x, y = np.asarray(it.x), np.asarray(it.y)
    common = {"x": x, "y": y, "z": _thin(grid), "zmin": low, "zmax": high, "colorscale": scale}
    figure.add_heatmap(
        **common,
        showscale=not bare,
        colorbar={"title": {"text": literal(it.unit), "side": "right"}, "thickness": 12},
        hovertemplate=None if it.colours else "%{x}, %{y}: %{z:.4g}<extra></extra>",
        hoverinfo="skip" if it.colours else None,
    )
    if it.levels:
        figure.add_contour(
            **common,
            showscale=False,
            autocontour=False,
            contours={"coloring": "none", "showlabels": True, **_levels(low, high, it.levels)},
            line={"width": 1, "color": _CONTOUR},
            hoverinfo="skip",
        )
    if bare:  # no colour bar; as wide as a heat map that has one
        figure.update_layout(margin_r=figure.layout.margin.r + _BAR)
    if it.image:
        figure.update_xaxes(visible=False, constrain="domain")
        figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x")


def _steps(colours: Sequence[str]) -> list[list[object]]:
    """Return a scale without transitions: a colour for each whole number."""
    n = len(colours)
    return [[at / n, colour] for i, colour in enumerate(colours) for at in (i, i + 1)]


def _levels(low: float, high: float, count: int) -> dict[str, float]:
    """Return at most ``count`` levels at multiples of 1, 2 or 5 times a power of ten.

    They depend on the ends of the scale alone, so charts on one scale have the same levels.
    """
    least = max(high - low, 1e-12) / count
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    first = math.floor(low / step + 1) * step
    return {"start": first, "end": high, "size": step}


def _add_surface(figure: go.Figure, it: Surface, plot: Plot) -> None:
    z = np.asarray(it.z, dtype=np.float64)
    low = float(np.nanmin(z)) if it.low is None else it.low
    high = float(np.nanmax(z)) if it.high is None else it.high
    figure.add_surface(
        x=np.asarray(it.x),
        y=np.asarray(it.y),
        z=z,
        cmin=low,
        cmax=high,
        colorscale=_PALE,
        showscale=False,
        lighting={"ambient": 0.8, "diffuse": 0.5, "specular": 0.05},
        contours={
            "z": {"show": True, "color": _CONTOUR, "width": 1, **_levels(low, high, it.levels)}
        },
        hovertemplate="%{x}, %{y}: %{z:.4g}<extra></extra>",
    )
    titles = {"xaxis": plot.x_title, "yaxis": plot.y_title, "zaxis": it.unit}
    axes = {
        name: {
            "title": {"text": literal(title), "font": {"size": 11, "color": INK}},
            "tickfont": {"size": 10, "color": SOFT},
            "gridcolor": GRID,
            "showbackground": False,
            "nticks": 5,
        }
        for name, title in titles.items()
    }
    axes["zaxis"]["range"] = [low, high]
    camera = {"eye": {"x": -1.5, "y": -1.5, "z": 0.9}, "center": {"x": 0, "y": 0, "z": -0.12}}
    figure.update_layout(
        scene={**axes, "camera": camera, "dragmode": "turntable", "aspectmode": "cube"}
    )
