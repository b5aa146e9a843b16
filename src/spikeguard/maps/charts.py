"""Heat maps of a map: its classes, and a chart for each number."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from spikeguard.analysis.plots import Heat, Plot
from spikeguard.maps.classes import CLASSES
from spikeguard.maps.fronts import SYNOPS, goals, number
from spikeguard.maps.printed import Printed
from spikeguard.maps.schedule import Place
from spikeguard.reporting.charts.analyses import drawn
from spikeguard.reporting.charts.base import COLOURS, INK, PAPER, Chart
from spikeguard.reporting.charts.base import literal as escaped

__all__ = ["Sheet", "class_chart", "framed", "heat_charts", "short"]

_CLASS_COLOURS = dict(
    zip(CLASSES, ("#007a5a", "#b87d00", "#4a4a4a", "#d55e00", "#a8518a"), strict=True)
)
_TICKS = 10  # labels along an axis
_HEIGHT = 340
_WIDE = 42  # characters of a line under the pointer


@dataclass(frozen=True)
class Sheet:
    """A map as the charts need it.

    Attributes:
        x: Values of the first field.
        y: Values of the second.
        names: The fields in short.
        cells: The record of each measured cell.
        hovers: What is shown over each cell, HTML.
        links: Report of each cell, relative to the page; "" where there is none.
        printed: Points of a paper.
        working: The working region.
    """

    x: Sequence[float | str]
    y: Sequence[float | str]
    names: tuple[str, str]
    cells: Mapping[Place, Mapping[str, Any]]
    hovers: Mapping[Place, str]
    links: Mapping[Place, str]
    printed: Sequence[Printed]
    working: set[Place]

    def grid(self, of: Callable[[Mapping[str, Any]], float | None]) -> np.ndarray[Any, Any]:
        """Return a number of each cell [y, x]; NaN where it is not known."""
        found = np.full((len(self.y), len(self.x)), np.nan)
        for (x, y), cell in self.cells.items():
            value = of(cell)
            if value is not None:
                found[y, x] = value
        return found

    def texts(self, of: Mapping[Place, str]) -> list[list[str]]:
        """Return a text of each cell [y, x]."""
        return [[of.get((x, y), "") for x in range(len(self.x))] for y in range(len(self.y))]


def heat_charts(sheet: Sheet) -> list[Chart]:
    """Return the class of the cells, then a heat map for each number; none is interpolated."""
    robust = goals(list(sheet.cells.values()))[2:]
    charts: list[Chart | None] = [
        class_chart(sheet),
        _heat(sheet, "accuracy", "Accuracy", "%", _percent(lambda c: number(c, "accuracy"))),
        *(
            _heat(
                sheet,
                f"robust-{place}",
                f"Accuracy under {name} (upper bound)",
                "%",
                _percent(lambda c, name=name: number(c, name)),  # type: ignore[misc]
            )
            for place, name in enumerate(robust)
        ),
        _heat(sheet, "spikes", "Spikes of an image", "", _path("spikes", "an_image"), log=True),
        _heat(sheet, SYNOPS, "Synaptic operations of an image", "", _synops, log=True),
        _heat(sheet, "eta-max", "Efficiency eta_max", "", _path("eta_max"), log=True),
        _heat(sheet, "eta-minmax", "Efficiency eta_minmax", "", _path("eta_minmax"), log=True),
        _heat(
            sheet, "near", "Potentials near the threshold", "%", _percent(_path("near_threshold"))
        ),
        *(
            _heat(
                sheet,
                f"zero-{place}",
                f"Images with a zero gradient, {name}",
                "%",
                _percent(_path("robust", name, "zero_gradient")),
            )
            for place, name in enumerate(robust)
        ),
    ]
    return [chart for chart in charts if chart is not None]


def class_chart(sheet: Sheet, marked: Collection[Place] = ()) -> Chart:
    """Return the class of the cells in a colour each, with a dot on the marked ones."""
    kinds = list(CLASSES)
    z = sheet.grid(lambda cell: kinds.index(cell["class"]) if cell["class"] in kinds else None)
    heat = Heat(z, range(len(sheet.x)), range(len(sheet.y)), "", low=-0.5, high=len(kinds) - 0.5)
    counts = [f"{int((z == place).sum())} {kind}" for place, kind in enumerate(kinds)]
    chart = framed(sheet, "class", "Class", f"Cells by class: {', '.join(counts)}", heat, marked)
    steps = [
        (place / len(kinds), colour, (place + 1) / len(kinds))
        for place, colour in enumerate(_CLASS_COLOURS.values())
    ]
    chart.figure.update_traces(
        colorscale=[[end, colour] for low, colour, high in steps for end in (low, high)],
        colorbar={"tickvals": list(range(len(kinds))), "ticktext": kinds},
        selector={"type": "heatmap"},
    )
    return chart


def _heat(
    sheet: Sheet,
    id: str,
    title: str,
    unit: str,
    of: Callable[[Mapping[str, Any]], float | None],
    *,
    log: bool = False,
) -> Chart | None:
    """Return a heat map; None where no cell has the number. A logarithmic one leaves out zeros."""
    z = sheet.grid(lambda cell: of(cell) if "accuracy" in cell else None)
    if log:
        with np.errstate(divide="ignore"):
            z = np.where(z > 0, np.log10(np.where(z > 0, z, 1.0)), np.nan)
    if not np.isfinite(z).any():
        return None
    low, high = float(np.nanmin(z)), float(np.nanmax(z))
    ends = [short(10**end if log else end) + unit for end in (low, high)]
    heat = Heat(z, range(len(sheet.x)), range(len(sheet.y)), unit)
    chart = framed(sheet, id, title, f"{title}: {ends[0]} to {ends[1]}", heat)
    if log or low == high:
        ticks = np.linspace(low, high, 5) if high > low else [low]
        texts = [short(10**tick if log else tick) for tick in ticks]
        bar = {"tickvals": list(ticks), "ticktext": texts}
        chart.figure.update_traces(colorbar=bar, selector={"type": "heatmap"})
    return chart


def framed(
    sheet: Sheet, id: str, title: str, summary: str, heat: Heat, marked: Collection[Place] = ()
) -> Chart:
    """Draw cells with their records, the outline of the working region, printed points and dots.

    Args:
        sheet: The map.
        id: Id of the chart on the page.
        title: Heading.
        summary: The content in words.
        heat: The numbers [y, x].
        marked: Cells with a dot.
    """
    names = sheet.names
    plot = Plot(id, title, summary, [heat], *names, height=_HEIGHT)
    chart = drawn(plot, {}, id=id)
    figure = chart.figure
    figure.update_traces(
        text=sheet.texts(sheet.hovers),
        customdata=sheet.texts(sheet.links),
        hovertemplate="%{text}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )
    _outline(figure, sheet.working)
    if marked:
        xs, ys = zip(*sorted(marked), strict=True)
        dot = {"size": 8, "color": INK, "line": {"color": PAPER, "width": 1.5}}
        figure.add_scatter(
            x=xs, y=ys, mode="markers", marker=dot, hoverinfo="skip", showlegend=False
        )
    if sheet.printed:
        figure.add_scatter(
            x=[_along(sheet.x, point.x) for point in sheet.printed],
            y=[_along(sheet.y, point.y) for point in sheet.printed],
            mode="markers",
            marker={"symbol": "x", "size": 9, "color": PAPER, "line": {"color": INK, "width": 1}},
            text=[_printed_text(point) for point in sheet.printed],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    for update, values in ((figure.update_xaxes, sheet.x), (figure.update_yaxes, sheet.y)):
        step = math.ceil(len(values) / _TICKS)
        places = list(range(0, len(values), step))
        update(
            tickvals=places,
            ticktext=[escaped(short(values[place], 4)) for place in places],
            range=[-0.5, len(values) - 0.5],
            showgrid=False,
            title_standoff=10,
        )
    return chart


def _printed_text(point: Printed) -> str:
    """Return the hover of a printed point: table, place, numbers and notes in short lines."""
    head, _, numbers = point.text.partition(": ")
    table, _, at = head.rpartition(", ")
    parts = [at, numbers, *(f"Note: {note}" for note in point.notes)]
    lines = [escaped(line) for part in parts for line in textwrap.wrap(part, _WIDE)]
    return "<br>".join([f"<b>{escaped(table)}</b>", *lines])


def _outline(figure: go.Figure, inside: set[Place]) -> None:
    """Draw the edges between the cells of a region and all others."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for x, y in sorted(inside):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            if (x + dx, y + dy) not in inside:
                xs += [x + dx / 2 - dy / 2, x + dx / 2 + dy / 2, None]
                ys += [y + dy / 2 - dx / 2, y + dy / 2 + dx / 2, None]
    line = {"color": COLOURS[1], "width": 2.5}
    figure.add_scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _synops(cell: Mapping[str, Any]) -> float | None:
    return number(cell, SYNOPS)


def _path(*keys: str) -> Callable[[Mapping[str, Any]], float | None]:
    def of(cell: Mapping[str, Any]) -> float | None:
        found: Any = cell
        for key in keys:
            found = None if found is None else found.get(key)
        return None if found is None else float(found)

    return of


def _percent(
    of: Callable[[Mapping[str, Any]], float | None],
) -> Callable[[Mapping[str, Any]], float | None]:
    def scaled(cell: Mapping[str, Any]) -> float | None:
        value = of(cell)
        return None if value is None else 100 * value

    return scaled


def _along(values: Sequence[float | str], value: float) -> float:
    """Return the place of a value between those of an axis."""
    rising = sorted((float(each), place) for place, each in enumerate(values))
    known, places = zip(*rising, strict=True)
    return float(np.interp(value, known, places))


def short(value: Any, digits: int = 3) -> str:
    """Write a value with three digits or another number of them, or a word."""
    if not isinstance(value, float | int):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.{digits}g}"
