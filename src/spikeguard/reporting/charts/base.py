"""Shared parts of all charts: colours and markers of the networks, axes, fonts."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from spikeguard.evaluation.statistics import Score
from spikeguard.reporting.readers.collect import Network

__all__ = [
    "COLOURS",
    "FADED",
    "GRID",
    "INK",
    "LEGEND",
    "PAPER",
    "SHADE",
    "SOFT",
    "Chart",
    "Look",
    "blank",
    "dark_colours",
    "errors",
    "literal",
    "log_ticks",
    "looks",
    "tint",
]

INK, SOFT, GRID, SHADE = "#1c2430", "#566070", "#e7eaef", "#f4f1ea"
PAPER, AXIS, ERROR, FADED = "#ffffff", "#9aa3b0", "#2b323d", "#c3c9d2"

# Okabe and Ito's colours for the colour-blind, darkened where they are too light for white paper.
COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#a8518a", "#4a4a4a", "#3a94cc", "#b87d00")
TINTS = (0.16, 0.35, 0.4)  # shares of a colour in the lighter ones made of it
_DARK_PAPER = "#14181f"
_DARK = {
    PAPER: _DARK_PAPER,
    INK: "#e6e9ee",
    SOFT: "#a5aebb",
    GRID: "#272d37",
    SHADE: "#26251f",
    AXIS: "#5c6675",
    ERROR: "#c9cfd8",
    FADED: "#4b5462",
    **dict(
        zip(
            COLOURS,
            ("#4aa8e8", "#f58a3c", "#35b892", "#d58cc0", "#b4b4b4", "#85c6f2", "#e0ab3a"),
            strict=True,
        )
    ),
}
_SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"

LEGEND: dict[str, Any] = {  # one line above a chart
    "orientation": "h",
    "x": 0,
    "y": 1.02,
    "yanchor": "bottom",
    "font": {"size": 12, "color": SOFT},
    "itemclick": False,
    "itemdoubleclick": False,
}


@dataclass(frozen=True)
class Look:
    """Colour and marker of one network."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Chart:
    """A figure with its heading and description.

    Attributes:
        id: Id of its element on the page.
        title: Heading above it.
        summary: Its content in words, for screen readers.
        figure: The plotly figure.
        caption: Title of the saved image; the heading where it is empty.
    """

    id: str
    title: str
    summary: str
    figure: go.Figure
    caption: str = ""


def looks(networks: Sequence[Network]) -> dict[str, Look]:
    """Give each network its own look: seven colours, with other markers after each seven."""
    pairs = []
    for number in range(len(networks)):
        turn, place = divmod(number, len(COLOURS))
        pairs.append(Look(COLOURS[place], _SHAPES[(place + turn) % len(_SHAPES)]))
    return {network.label: look for network, look in zip(networks, pairs, strict=True)}


def blank(height: int) -> go.Figure:
    """Return an empty figure with the axes of the report; it fills the available width."""
    figure = go.Figure()
    axis: dict[str, Any] = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": AXIS,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": AXIS,
        "tickfont": {"size": 12, "color": SOFT},
        "title_font": {"size": 13, "color": INK},
        "fixedrange": True,
        "automargin": True,
    }
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        font={"family": _FONT, "size": 12, "color": INK},
        hoverlabel={"font": {"family": _FONT, "size": 13}, "bgcolor": PAPER, "namelength": -1},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        dragmode=False,
    )
    figure.update_xaxes(**axis, showline=True)
    figure.update_yaxes(**axis)
    return figure


def literal(text: str) -> str:
    """Escape text for plotly, whose labels interpret tags and entities."""
    return html.escape(text, quote=False)


def tint(colour: str, share: float, paper: str = PAPER) -> str:
    """Mix a colour "#rrggbb" with the paper: ``share`` 1 is the colour, 0 is the paper."""
    pairs = ((int(c[at : at + 2], 16) for c in (colour, paper)) for at in (1, 3, 5))
    return "#" + "".join(f"{round(under + share * (over - under)):02x}" for over, under in pairs)


def dark_colours() -> dict[str, str]:
    """Return the colour on a dark page for each colour of the charts."""
    tints = {
        tint(colour, share): tint(dark, share, _DARK_PAPER)
        for colour, dark in _DARK.items()
        if colour in (*COLOURS, INK)
        for share in TINTS
    }
    return _DARK | tints


def log_ticks(values: Sequence[float]) -> list[float]:
    """Return 1, 2 and 5 of each decade around the values; 1 alone where there are many decades."""
    if not values:
        return [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    return [step * 10.0**decade for decade in range(low, high + 1) for step in steps]


def errors(scores: Sequence[Score]) -> dict[str, Any]:
    """Return error bars, in per cent, for the intervals of accuracies."""
    return {
        "type": "data",
        "array": [100 * max(0.0, score.high - score.accuracy) for score in scores],
        "arrayminus": [100 * max(0.0, score.accuracy - score.low) for score in scores],
        "color": ERROR,
        "thickness": 1.1,
        "width": 2.5,
    }
