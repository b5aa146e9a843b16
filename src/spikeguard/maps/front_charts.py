"""Charts of the Pareto fronts of a map, in pairs and in 3-D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spikeguard.maps.charts import Sheet, short
from spikeguard.maps.fronts import SYNOPS, Front, fronts, number
from spikeguard.maps.schedule import Place
from spikeguard.reporting.charts.base import COLOURS, FADED, INK, LEGEND, SOFT, Chart, blank
from spikeguard.reporting.charts.base import literal as escaped

__all__ = ["front_charts"]

_HEIGHT = 340


def front_charts(sheet: Sheet) -> list[Chart]:
    """Return the Pareto fronts of pairs of metrics, and of three in 3-D."""
    places, cells = list(sheet.cells), list(sheet.cells.values())
    return [
        _front_chart(sheet, places, cells, found, f"front-{place}")
        for place, found in enumerate(fronts(cells))
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
            for axis, metric in zip("xyz"[: len(it.names)], it.names, strict=True)
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
    at = cells[it.knee]["point"]
    label = ", ".join(f"{n} {short(v)}" for n, v in zip(sheet.names, at.values(), strict=True))
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
