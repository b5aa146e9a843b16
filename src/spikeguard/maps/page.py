"""The page of a map: heat maps, fronts and the table of its cells, in one HTML file."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from spikeguard.maps.charts import Sheet, heat_charts
from spikeguard.maps.classes import CLASSES
from spikeguard.maps.efficiency import ETAS
from spikeguard.maps.front_charts import front_charts
from spikeguard.maps.plan import REPORT
from spikeguard.maps.printed import Printed, printed_points
from spikeguard.maps.schedule import Place, Seen, region
from spikeguard.reporting.charts.base import Chart, dark_colours
from spikeguard.reporting.page import figures_of
from spikeguard.reporting.renderer import environment, packed_plotly

__all__ = ["PAGE", "hover_text", "map_page", "number_text", "report_link", "with_point"]

PAGE = "map.html"


@dataclass(frozen=True)
class MapPage:
    """The content of the page; ``map.html.j2`` places each part.

    Attributes:
        title: Heading.
        subtitle: Recipe, seeds and steps in one line.
        heats: Heat maps.
        fronts: Pareto fronts.
        head: Titles of the table's columns.
        rows: Report and texts of each cell.
        classes: Rule of each class.
        etas: Definition of each efficiency.
        printed: Points of the paper that are marked.
        left: Whether cells are still to be measured.
        made_from: The file that the page shows.
    """

    title: str
    subtitle: str
    heats: list[Chart]
    fronts: list[Chart]
    head: list[str]
    rows: list[tuple[str, list[str]]]
    classes: Mapping[str, str]
    etas: Mapping[str, str]
    printed: Sequence[Printed]
    left: bool

    made_from: str = "map.json"

    @property
    def dark(self) -> dict[str, str]:
        """The colour on a dark page for each colour of the charts."""
        return dark_colours()


def map_page(card: Mapping[str, Any], folder: Path) -> str:
    """Return the page of a map.

    Args:
        card: What map.json holds.
        folder: Its folder; cells are linked to the reports in it.
    """
    of = card["map"]
    axes = [of[name] for name in ("x", "y")]
    places: dict[Place, Mapping[str, Any]] = {}
    for cell in card["cells"]:
        x, y = (axis["values"].index(cell["point"][axis["field"]]) for axis in axes)
        places[x, y] = cell
    seen = {place: Seen.of(cell) for place, cell in places.items()}
    names, facts = with_point(
        [axis["field"] for axis in axes],
        {place: cell["point"] for place, cell in places.items()},
        {place: _facts(cell) for place, cell in places.items()},
    )
    sheet = Sheet(
        axes[0]["values"],
        axes[1]["values"],
        names,
        places,
        {place: hover_text(each) for place, each in facts.items()},
        {place: report_link(cell, folder, folder / PAGE) for place, cell in places.items()},
        printed_points(of, _most_spikes(card["cells"])),
        region(len(axes[0]["values"]), len(axes[1]["values"]), seen, "working"),
    )
    recipe, n = of["recipe"], len(of["seeds"])
    steps = "the recipe's epochs" if of["steps"] is None else f"{of['steps']:,} optimiser steps"
    left = f"; {card['left']} or more left" if card["left"] else ""
    head = list(dict.fromkeys(name for each in facts.values() for name in each))
    page = MapPage(
        title=f"Operational map: {recipe['title'] or recipe['name']}",
        subtitle=(
            f"{len(places)} of {card['size']} cells measured{left} · {steps} a training or more · "
            f"{n} {'seed' if n == 1 else 'seeds'} a cell"
        ),
        heats=heat_charts(sheet),
        fronts=front_charts(sheet),
        head=head,
        rows=[(sheet.links[p], [facts[p].get(name, "") for name in head]) for p in sorted(places)],
        classes=dict(CLASSES.items()),
        etas=ETAS,
        printed=sheet.printed,
        left=bool(card["left"]),
    )
    figures = Markup(figures_of([*page.heats, *page.fronts]))
    made = environment()
    made.globals["page"] = page
    return made.get_template("map.html.j2").render(figures=figures, plotly_gz=packed_plotly())


def _most_spikes(cells: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the spikes of an image that the network can emit; None if no cell says it."""
    found = [each.get("spikes", {}).get("at_most") for each in cells]
    return max((each for each in found if each is not None), default=None)


def with_point(
    fields: Sequence[str],
    points: Mapping[Place, Mapping[str, Any]],
    facts: Mapping[Place, dict[str, str]],
) -> tuple[tuple[str, str], dict[Place, dict[str, str]]]:
    """Return the two fields in short, and the facts about each cell after its values of them.

    A short name is the end of a path, as long as it must be to differ from the other one and from
    the names of the facts.

    Args:
        fields: Path of the field along x, then along y.
        points: Value of each field, by the place of the cell.
        facts: Texts by name, by the place of the cell.
    """
    parts = [field.split(".") for field in fields]
    taken = {name for each in facts.values() for name in each}
    x, y = fields
    for length in range(1, max(map(len, parts)) + 1):
        x, y = (".".join(part[-length:]) for part in parts)
        if x != y and not taken & {x, y}:
            break
    named = dict(zip(fields, (x, y), strict=True))
    return (x, y), {
        place: {short: number_text(points[place][field]) for field, short in named.items()} | each
        for place, each in facts.items()
    }


def _facts(cell: Mapping[str, Any]) -> dict[str, str]:
    """Return the record of a cell, without its point, as words and numbers."""
    found = {"class": cell["class"] or "failed"}
    if "accuracy" not in cell:
        return {**found, "error": cell["error"]}
    spikes, operations = cell["spikes"], cell["operations"]
    found |= {
        "accuracy": _score(cell["accuracy"]),
        "each seed": ", ".join(
            f"{100 * each['accuracy']['accuracy']:.1f}" for each in cell["seeds"].values()
        ),
    }
    for name, each in cell["robust"].items():
        found[f"{name}, upper bound"] = _score(each)
        found[f"{name}, zero gradient"] = f"{each['zero_gradient']:.0%}"
    return found | {
        "spikes of an image": number_text(spikes["an_image"]),
        "by layer": ", ".join(map(number_text, spikes["layers"].values())),
        "with input": number_text(spikes.get("with_input")),
        "without output": number_text(spikes.get("without_output")),
        "effective ACs": number_text(operations["effective_acs"]),
        "effective MACs": number_text(operations["effective_macs"]),
        "membrane updates": number_text(operations["membrane_updates"]),
        "near threshold": f"{cell['near_threshold']:.1%}",
        "eta_max": number_text(cell.get("eta_max")),
        "eta_minmax": number_text(cell.get("eta_minmax")),
        "steps": f"{cell['steps']:,}",
        "seconds": number_text(cell["seconds"]),
    }


def hover_text(facts: Mapping[str, str]) -> str:
    """Return the facts about a cell as HTML, a line each."""
    escape = html.escape
    return "<br>".join(f"{escape(name)}: <b>{escape(text)}</b>" for name, text in facts.items())


def report_link(cell: Mapping[str, Any], folder: Path, page: Path) -> str:
    """Return the address of a cell's report, relative to a page; "" if it has none.

    Args:
        cell: Its record.
        folder: Folder of the map.
        page: The page.
    """
    runs = cell.get("runs") or []
    if not runs:
        return ""
    found = folder / Path(runs[0]).parent / REPORT
    if not found.exists():
        return ""
    return quote(Path(os.path.relpath(found.resolve(), page.resolve().parent)).as_posix())


def _score(score: Mapping[str, Any]) -> str:
    ends = [100 * score[name] for name in ("accuracy", "low", "high")]
    return f"{ends[0]:.1f} % [{ends[1]:.1f}, {ends[2]:.1f}]"


def number_text(value: Any) -> str:
    """Write a number with four digits, a word as it is, and a dash for None."""
    if value is None:
        return "–"
    if not isinstance(value, float | int):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
