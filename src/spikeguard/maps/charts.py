"""Charts of a map: a heat map for each number, and the Pareto fronts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from spikeguard.analysis.plots import Heat, Plot
from spikeguard.maps.classes import CLASSES
from spikeguard.maps.fronts import SYNOPS, Front, fronts, goals, number
from spikeguard.maps.printed import Printed
from spikeguard.maps.schedule import Place
from spikeguard.reporting.charts.analyses import drawn
from spikeguard.reporting.charts.base import COLOURS, FADED, INK, LEGEND, PAPER, SOFT, Chart, blank
from spikeguard.reporting.charts.base import literal as escaped

__all__ = ["Sheet", "front_charts", "heat_charts"]

_CLASS_COLOURS = dict(
    zip(CLASSES, ("#007a5a", "#b87d00", "#4a4a4a", "#d55e00", "#a8518a"), strict=True)
)
_TICKS = 10  # labels along an axis
_HEIGHT = 340


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
        _class_chart(sheet),
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


def _class_chart(sheet: Sheet) -> Chart:
    kinds = list(CLASSES)
    z = sheet.grid(lambda cell: kinds.index(cell["class"]) if cell["class"] in kinds else None)
    heat = Heat(z, range(len(sheet.x)), range(len(sheet.y)), "", low=-0.5, high=len(kinds) - 0.5)
    counts = [f"{int((z == place).sum())} {kind}" for place, kind in enumerate(kinds)]
    chart = _framed(sheet, "class", "Class", f"Cells by class: {', '.join(counts)}", heat)
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
    ends = [_short(10**end if log else end) + unit for end in (low, high)]
    heat = Heat(z, range(len(sheet.x)), range(len(sheet.y)), unit)
    chart = _framed(sheet, id, title, f"{title}: {ends[0]} to {ends[1]}", heat)
    if log:
        ticks = np.linspace(low, high, 5) if high > low else [low]
        bar = {"tickvals": list(ticks), "ticktext": [_short(10**tick) for tick in ticks]}
        chart.figure.update_traces(colorbar=bar, selector={"type": "heatmap"})
    return chart


def _framed(sheet: Sheet, id: str, title: str, summary: str, heat: Heat) -> Chart:
    """Draw cells with their records, the outline of the working region and printed points."""
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
    if sheet.printed:
        figure.add_scatter(
            x=[_along(sheet.x, point.x) for point in sheet.printed],
            y=[_along(sheet.y, point.y) for point in sheet.printed],
            mode="markers",
            marker={"symbol": "x", "size": 9, "color": PAPER, "line": {"color": INK, "width": 1}},
            text=[escaped(point.text) for point in sheet.printed],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    for update, values in ((figure.update_xaxes, sheet.x), (figure.update_yaxes, sheet.y)):
        step = math.ceil(len(values) / _TICKS)
        places = list(range(0, len(values), step))
        update(
            tickvals=places,
            ticktext=[escaped(_short(values[place])) for place in places],
            range=[-0.5, len(values) - 0.5],
            showgrid=False,
            title_standoff=10,
        )
    return chart


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


def front_charts(sheet: Sheet) -> list[Chart]:
    """Return the Pareto fronts of pairs of metrics, and of three in 3-D."""
    places, cells = list(sheet.cells), list(sheet.cells.values())
    return [
        _front_chart(sheet, places, cells, found, f"front-{number}")
        for number, found in enumerate(fronts(cells))
    ]


def _front_chart(
    sheet: Sheet, places: Sequence[Place], cells: Sequence[Mapping[str, Any]], it: Front, id: str
) -> Chart:
    titles = [_metric_title(name) for name in it.names]
    known = [p for p, cell in enumerate(cells) if "accuracy" in cell]
    flat = len(it.names) == 2
    figure = blank(_HEIGHT if flat else 460)
    groups: list[tuple[str, Sequence[int], dict[str, Any]]] = [
        ("other cells", [p for p in known if p not in it.cells], {"color": FADED, "size": 7}),
        ("front", it.cells, {"color": COLOURS[0], "size": 9}),
        ("knee", [it.knee], {"color": COLOURS[1], "size": 13, "symbol": "diamond"}),
    ]
    for name, group, marker in groups:
        axes = {
            axis: [_metric(cells[p], metric) for p in group]
            for axis, metric in zip("xyz", it.names, strict=False)
        }
        shown: dict[str, Any] = {
            **axes,
            "name": name,
            "mode": "markers",
            "text": [sheet.hovers[places[p]] for p in group],
            "customdata": [sheet.links[places[p]] for p in group],
            "hovertemplate": "%{text}<extra></extra>",
        }
        if flat:
            figure.add_scatter(marker=marker, **shown)
        else:
            figure.add_scatter3d(marker={**marker, "size": marker["size"] / 2}, **shown)
    figure.update_layout(showlegend=True, legend=LEGEND)
    kinds = ["log" if name == SYNOPS else "linear" for name in it.names]
    if flat:
        figure.update_xaxes(title_text=escaped(titles[0]), type=kinds[0])
        figure.update_yaxes(title_text=escaped(titles[1]), type=kinds[1])
    else:
        figure.update_layout(scene=_scene(titles, kinds))
    at = label = cells[it.knee]["point"]
    label = ", ".join(f"{n} {_short(v)}" for n, v in zip(sheet.names, at.values(), strict=True))
    title = f"Front: {', '.join(_word(name) for name in it.names)}"
    return Chart(id, title, f"{title}: {len(it.cells)} cells; knee at {label}", figure)


def _scene(titles: Sequence[str], kinds: Sequence[str]) -> dict[str, Any]:
    axes = {
        f"{axis}axis": {
            "title": {"text": escaped(title), "font": {"size": 11, "color": INK}},
            "type": kind,
            "tickfont": {"size": 10, "color": SOFT},
            "showbackground": False,
        }
        for axis, title, kind in zip("xyz", titles, kinds, strict=True)
    }
    camera = {"eye": {"x": -1.5, "y": -1.5, "z": 0.9}}
    return {**axes, "camera": camera, "dragmode": "turntable", "aspectmode": "cube"}


def _word(name: str) -> str:
    return {"accuracy": "accuracy", SYNOPS: "operations"}.get(name, name)


def _metric_title(name: str) -> str:
    if name == SYNOPS:
        return "Synaptic operations of an image"
    return "Accuracy (%)" if name == "accuracy" else f"Accuracy under {name} (%)"


def _metric(cell: Mapping[str, Any], name: str) -> float | None:
    value = number(cell, name)
    return value if value is None or name == SYNOPS else 100 * value


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
    return float(np.interp(value, [float(each) for each in values], range(len(values))))


def _short(value: Any) -> str:
    if not isinstance(value, float | int):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
