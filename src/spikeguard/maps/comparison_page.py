"""The page of a comparison: the difference of two maps as heat maps and a table, in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from spikeguard.analysis.plots import Heat
from spikeguard.maps.charts import Sheet, class_chart, framed, short
from spikeguard.maps.comparison import Comparison, Difference, Ratio
from spikeguard.maps.fronts import SYNOPS
from spikeguard.maps.page import hover_text, report_link, with_point
from spikeguard.maps.schedule import Place
from spikeguard.reporting.charts.base import GRID, Chart, dark_colours
from spikeguard.reporting.page import figures_of
from spikeguard.reporting.renderer import environment, packed_plotly

__all__ = ["comparison_page"]

_TITLES = {"spikes": "Spikes of an image", SYNOPS: "Synaptic operations of an image"}


@dataclass(frozen=True)
class ComparisonPage:
    """The content of the page; ``map_compare.html.j2`` places each part.

    Attributes:
        title: Heading.
        subtitle: The two maps and their cells in one line.
        names: The two maps.
        heats: Heat maps of the differences.
        head: Titles of the table's columns.
        rows: Report and texts of each cell.
        made_from: The files that the page shows.
    """

    title: str
    subtitle: str
    names: tuple[str, str]
    heats: list[Chart]
    head: list[str]
    rows: list[tuple[str, list[str]]]
    made_from: str

    @property
    def dark(self) -> dict[str, str]:
        """The colour on a dark page for each colour of the charts."""
        return dark_colours()


def comparison_page(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    found: Comparison,
    folders: tuple[Path, Path],
    page: Path,
) -> str:
    """Return the page of a comparison.

    Args:
        first: What map.json of the first map holds.
        second: That of the second.
        found: Their difference.
        folders: Their folders; a click on a cell opens its report in the second.
        page: Where the page is written.
    """
    axes = [first["map"][name] for name in ("x", "y")]
    reports = {
        place: report_link(cell, folders[1], page)
        for cell in second["cells"]
        if (place := _place(axes, cell["point"])) is not None
    }
    cells = {
        place: cell
        for cell in found.cells
        if (place := _place(axes, cell.point)) is not None  # all are
    }
    short_names, facts = with_point(
        [axis["field"] for axis in axes],
        {place: cell.point for place, cell in cells.items()},
        {place: _facts(cell) for place, cell in cells.items()},
    )
    sheet = Sheet(
        axes[0]["values"],
        axes[1]["values"],
        short_names,
        {place: {"class": cell.classes[1]} for place, cell in cells.items()},
        {place: hover_text(each) for place, each in facts.items()},
        {place: reports.get(place, "") for place in cells},
        (),
        set(),
    )
    names = (str(folders[0]), str(folders[1]))
    alone = [f"{n} only in {name}" for n, name in zip(found.only, names, strict=True) if n]
    head = list(dict.fromkeys(name for each in facts.values() for name in each))
    content = ComparisonPage(
        title=f"{names[1]} less {names[0]}",
        subtitle=" · ".join([f"{len(cells)} cells of both maps", *alone]),
        names=names,
        heats=_charts(sheet, cells),
        head=head,
        rows=[(sheet.links[p], [facts[p].get(name, "") for name in head]) for p in sorted(cells)],
        made_from="map.json of both maps",
    )
    made = environment()
    made.globals["page"] = content
    return made.get_template("map_compare.html.j2").render(
        figures=Markup(figures_of(content.heats)), plotly_gz=packed_plotly()
    )


def _place(axes: list[dict[str, Any]], point: Mapping[str, Any]) -> Place | None:
    """Return the place of a point on the axes of the first map; None if it is not on them."""
    values = [point.get(axis["field"]) for axis in axes]
    if any(value not in axis["values"] for value, axis in zip(values, axes, strict=True)):
        return None
    x, y = (axis["values"].index(value) for value, axis in zip(values, axes, strict=True))
    return x, y


def _charts(sheet: Sheet, cells: Mapping[Place, Difference]) -> list[Chart]:
    """Return the classes of the second map, then the difference of each number."""
    charts = [class_chart(sheet, _changed(cells, "class"))]
    scores = dict.fromkeys(name for cell in cells.values() for name in cell.accuracies)
    for place, name in enumerate(scores):
        title = "Accuracy" if name == "accuracy" else f"Accuracy under {name} (upper bound)"
        values = {p: 100 * c.accuracies[name][0] for p, c in cells.items() if name in c.accuracies}
        charts.append(_heat(sheet, cells, f"accuracy-{place}", name, f"{title}, points", values))
    for name, title in _TITLES.items():
        logs = {p: math.log10(c.ratios[name][0]) for p, c in cells.items() if name in c.ratios}
        if logs:
            charts.append(_heat(sheet, cells, name, name, f"{title}, ratio", logs, log=True))
    return charts


def _changed(cells: Mapping[Place, Difference], name: str) -> list[Place]:
    return [place for place, cell in cells.items() if name in cell.changed]


def _heat(
    sheet: Sheet,
    cells: Mapping[Place, Difference],
    id: str,
    name: str,
    title: str,
    values: Mapping[Place, float],
    *,
    log: bool = False,
) -> Chart:
    """Draw differences in two hues around no change, or logarithms of ratios around 1."""
    z = np.full((len(sheet.y), len(sheet.x)), np.nan)
    for (x, y), value in values.items():
        z[y, x] = value
    limit = max(map(abs, values.values())) or 1.0
    heat = Heat(z, range(len(sheet.x)), range(len(sheet.y)), low=-limit, high=limit, diverging=True)
    marked = _changed(cells, name)
    same = 1 if log else 0
    summary = f"{title}: {len(marked)} of {len(values)} cells with an interval that excludes {same}"
    chart = framed(sheet, id, title, summary, heat, marked)
    ticks = [limit * step / 2 for step in range(-2, 3)]
    bar = {
        "tickvals": ticks,
        "ticktext": [f"x {10**tick:.3g}" if log else f"{short(tick)}" for tick in ticks],
    }
    chart.figure.update_traces(colorbar=bar, selector={"type": "heatmap"})
    chart.figure.update_layout(plot_bgcolor=GRID)  # an empty cell is not the white of no change
    return chart


def _facts(cell: Difference) -> dict[str, str]:
    """Return the difference of a cell, without its point, as words and numbers."""
    same = len(set(cell.classes)) == 1
    found = {"class": cell.classes[0] if same else f"{cell.classes[0]} > {cell.classes[1]}"}
    for name, each in cell.accuracies.items():
        value, low, high = (100 * end for end in each)
        title = name if name == "accuracy" else f"{name}, upper bound"
        found[title] = f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    return found | {_TITLES[name].lower(): _times(ratio) for name, ratio in cell.ratios.items()}


def _times(ratio: Ratio) -> str:
    value, low, high = ratio
    ends = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
    return f"x {value:.3g}{ends}"
