"""Curve of a search that runs until it is converged: survivors against CPU time, by search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import plotly.graph_objects as go

from spikeguard.reporting import formatting
from spikeguard.reporting.charts.base import (
    COLOURS,
    INK,
    LEGEND,
    SOFT,
    Chart,
    blank,
    literal,
    log_ticks,
    tint,
)

__all__ = ["search_chart", "search_notes", "search_rows"]

_HEIGHT = 360
_OTHER = "other"  # kinds beyond the number of colours
_BUDGETS = 10  # the estimate is for this many times the CPU time spent

Record = Mapping[str, Any]


def search_chart(record: Record, *, id: str, title: str) -> Chart:
    """Draw the share of images that survive against CPU seconds, one colour per kind of search.

    The kind is the name before the first "/": "sapgd" of "sapgd/assg". A step down belongs to the
    search that ends there. A band gives the estimate for ten times the CPU time.

    Args:
        record: The record of the search: ``curve``, points with the name of the ``search``, all
            image-gradients (``gradients``) and CPU seconds (``cpu_s``) spent so far and the images
            that are ``left``; ``n``, the images attacked, >= 1; ``start``, the sum of their
            shares of correct draws, ``n`` if missing; ``ended``, the rule that ended it;
            ``estimate``, the images (``more``, from ``low`` to ``high``) still to be found, or
            None; ``noisy``, whether the model draws noise.
        id: Id of the chart on the page.
        title: Heading of the chart.
    """
    n, curve, colours = record["n"], record["curve"], _colours(record)
    start = min((p["cpu_s"] for p in curve if p["cpu_s"] > 0), default=0.1) / 1.6
    last = max(start, curve[-1]["cpu_s"]) if curve else start
    figure = blank(_HEIGHT).update_layout(legend=LEGEND, showlegend=True)
    end = _estimate(figure, record, last)
    for kind, colour in colours.items():
        x, y, text = _steps(record, start, kind, set(colours))
        figure.add_scatter(
            name=literal(formatting.search(kind)),
            mode="lines",
            x=x,
            y=[None if left is None else 100 * left / n for left in y],
            line={"color": colour, "width": 2.5},
            customdata=text,
            hovertemplate="%{customdata}<extra></extra>",
        )
    ticks = [tick for tick in log_ticks([start, end]) if start <= tick <= end]
    figure.update_xaxes(
        title_text="CPU seconds (log scale)",
        type="log",
        range=[math.log10(start), math.log10(1.08 * end)],
        tickvals=ticks,
        ticktext=[f"{tick:,g}" for tick in ticks],
    )
    figure.update_yaxes(
        title_text=f"Survivors (% of {formatting.count(n)} images)",
        range=[-3, 103],
        tick0=0,
        dtick=25,
    )
    return Chart(id, title, " ".join(search_notes(record)), figure)


def search_rows(record: Record) -> list[tuple[str, str, str, str, str]]:
    """Return the table: name, colour, images found, gradients and CPU seconds of each search.

    The search that found most comes first. Searches that found nothing share one row; the last row
    is the sum.
    """
    spent, colours = _spent(record), _colours(record)
    names = sorted(spent, key=lambda name: (-spent[name][0], spent[name][2]))
    found = [name for name in names if spent[name][0]]
    rows = [
        _row(formatting.search(name), colours[_kind(name, set(colours))], spent[name])
        for name in found
    ]
    idle = [spent[name] for name in names if not spent[name][0]]
    if idle:
        rest = f"{len(idle)} search{'es' * (len(idle) > 1)} that found nothing"
        rows.append(_row(rest, "", _sum(idle)))
    return [*rows, _row("all", "", _sum(list(spent.values())))]


def search_notes(record: Record) -> list[str]:
    """Return in words: what survives after which effort, why the search ended, the estimate."""
    n, curve = record["n"], record["curve"]
    left = curve[-1]["left"] if curve else n
    effort = "no search ran"
    if curve:
        each = curve[-1]["gradients"] / n
        effort = f"{each:,.0f} gradients an image and {curve[-1]['cpu_s']:,.1f} CPU seconds"
    notes = [
        f"{formatting.count(left)} of {formatting.count(n)} attacked images "
        f"({formatting.percent(left / n)}) survive after {effort}.",
        f"Ended by: {record['ended']}.",
    ]
    if record.get("noisy"):
        notes.append(
            "The survivors are counted on the noise draws that choose the inputs, which is low by "
            "chance; the reported accuracy is on other draws."
        )
    guess = record.get("estimate")
    if guess is not None and left and guess["low"] >= left:
        notes.append(f"Too early to estimate what {_BUDGETS} times the budget would find.")
    elif guess is not None and left:
        notes.append(
            f"Estimate, not a measurement: {_BUDGETS} times the budget is likely to find "
            f"{guess['more']:.1f} more images, between {guess['low']:.1f} and {guess['high']:.1f}."
        )
    return notes


def _estimate(figure: go.Figure, record: Record, last: float) -> float:
    """Draw the estimate as a band that opens to the right; return the right end of the chart."""
    guess, curve = record.get("estimate"), record["curve"]
    if guess is None or not curve:
        return last
    end, left, n = _BUDGETS * last, curve[-1]["left"], record["n"]
    more, low, high = (max(0.0, left - guess[key]) for key in ("more", "low", "high"))
    figure.add_scatter(
        mode="lines",
        x=[last, end, end, last],
        y=[100 * share / n for share in (left, low, high, left)],
        fill="toself",
        fillcolor=tint(INK, 0.16),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        name="estimate",
        mode="lines",
        x=[last, end],
        y=[100 * left / n, 100 * more / n],
        line={"color": INK, "width": 1.5, "dash": "dot"},
        hovertemplate="estimate at %{x:.3g} CPU s: %{y:.1f} %<extra></extra>",
    )
    return end


def _steps(
    record: Record, start: float, kind: str, kinds: set[str]
) -> tuple[list[float | None], list[float | None], list[str]]:
    """Return the steps of one kind: level until a point, then down; None separates them."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for before, point in _pairs(record):
        if _kind(point["search"], kinds) != kind:
            continue
        at = max(start, point["cpu_s"])
        x += [max(start, before["cpu_s"]), at, at, None]
        y += [before["left"], before["left"], point["left"], None]
        found, left = (formatting.count(k) for k in (before["left"] - point["left"], point["left"]))
        said = f"{literal(formatting.search(point['search']))}: {found} found, {left} left"
        said += f" after {point['cpu_s']:,.1f} CPU s"
        text += [said] * 4
    return x, y, text


def _pairs(record: Record) -> Iterator[tuple[Record, Record]]:
    """Yield each point with the one before it."""
    start = record.get("start", record["n"])
    before: Record = {"gradients": 0.0, "cpu_s": 0.0, "left": start}
    for point in record["curve"]:
        yield before, point
        before = point


def _spent(record: Record) -> dict[str, tuple[float, float, float]]:
    """Return images found, gradients and CPU seconds of each search."""
    spent: dict[str, tuple[float, float, float]] = {}
    for before, point in _pairs(record):
        step = (
            before["left"] - point["left"],
            point["gradients"] - before["gradients"],
            point["cpu_s"] - before["cpu_s"],
        )
        spent[point["search"]] = _sum([spent.get(point["search"], (0, 0.0, 0.0)), step])
    return spent


def _colours(record: Record) -> dict[str, str]:
    """Return the colour of each kind; those that found most have one of their own."""
    found: dict[str, float] = {}
    for name, (images, _, _) in _spent(record).items():
        kind = name.partition("/")[0]
        found[kind] = found.get(kind, 0) + images
    kinds = sorted(found, key=lambda kind: -found[kind])
    own = kinds if len(kinds) <= len(COLOURS) else kinds[: len(COLOURS) - 1]
    colours = dict(zip(own, COLOURS[: len(own)], strict=True))
    return colours if own == kinds else colours | {_OTHER: SOFT}


def _kind(name: str, kinds: set[str]) -> str:
    kind = name.partition("/")[0]
    return kind if kind in kinds else _OTHER


def _sum(parts: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    found, gradients, seconds = zip(*parts, strict=True) if parts else ((), (), ())
    return sum(found), sum(gradients), sum(seconds)


def _row(
    name: str, colour: str, spent: tuple[float, float, float]
) -> tuple[str, str, str, str, str]:
    found, gradients, seconds = spent
    return name, colour, formatting.count(found), f"{gradients:,.0f}", f"{seconds:,.1f}"
