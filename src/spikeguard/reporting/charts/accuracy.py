"""Charts of accuracy under each attack, and of accuracy against the radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from spikeguard.config.schema import eps_text
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting import formatting
from spikeguard.reporting.charts.base import SHADE, Chart, Look, blank, errors, literal, tint
from spikeguard.reporting.standings import Radius

__all__ = ["against_radius", "per_attack"]

_FADED = "#c3c9d2"


def per_attack(radius: Radius, look: Mapping[str, Look]) -> Chart:
    """Return bars of accuracy under each attack, with intervals, one bar for each network."""
    names = ["clean", *radius.attacks, "worst_case"]
    rows = {name: formatting.attack(name) for name in names}
    figure = blank(height=64 + len(names) * (16 + 10 * len(radius.attacked)))
    for label, standing in radius.attacked.items():
        scores = {"clean": standing.clean, **standing.attacks, "worst_case": standing.worst_case}
        shown = {rows[name]: scores[name] for name in names if name in scores}
        figure.add_bar(
            name=literal(label),
            orientation="h",
            y=list(shown),
            x=[100 * score.accuracy for score in shown.values()],
            error_x=errors(list(shown.values())),
            marker={"color": look[label].colour},
            customdata=[formatting.scored(score) for score in shown.values()],
            hovertemplate="<b>%{y}</b><br>%{customdata}<extra>%{fullData.name}</extra>",
        )
    last, strong = len(names) - 1, (radius.printed, "worst_case")
    figure.add_hrect(last - 0.5, last + 0.5, fillcolor=SHADE, line_width=0, layer="below")
    figure.update_layout(barmode="group", bargap=0.26, bargroupgap=0.1)
    figure.update_xaxes(title_text="Accuracy (%)", range=[0, 101], dtick=20)
    figure.update_yaxes(
        title={"text": "Attack", "standoff": 12},
        tickvals=list(rows.values()),
        ticktext=[f"<b>{row}</b>" if name in strong else row for name, row in rows.items()],
        categoryorder="array",
        categoryarray=list(rows.values()),
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
    )
    return Chart(
        f"per-attack-{radius.norm}-{radius.eps:g}".replace(".", "_"),
        f"{formatting.norm(radius.norm)}, {formatting.radius(radius.eps)}",
        "Bars of accuracy with 95 % intervals for each attack, one bar for each network; the last "
        "row is the worst case over all attacks. The table below has the numbers.",
        figure,
    )


def against_radius(places: Sequence[Radius], label: str, look: Mapping[str, Look]) -> Chart:
    """Return accuracy of one network against the radius: as printed, and in the worst case."""
    attacked = {p.eps: s for p in places if (s := p.standings[label]) is not None}
    start = {0.0: next(iter(attacked.values())).clean}
    worst = start | {eps: s.worst_case for eps, s in attacked.items()}
    printed = {e: s.attacks[s.printed] for e, s in attacked.items() if s.printed is not None}
    colour, shape = look[label].colour, look[label].shape
    figure = blank(height=250)
    for other in (o for o in look if o != label):
        _other(figure, places, other)
    if printed:
        style = {"colour": colour, "dash": "dash", "symbol": f"{shape}-open"}
        _line(figure, start | printed, "PGD, own surrogate", **style)
    _line(figure, worst, "Worst case", colour=colour, dash="solid", symbol=shape)
    if printed.keys() == attacked.keys():
        figure.data[-1].update(fill="tonexty", fillcolor=tint(colour, 0.16))
    norm, ticks = places[0].norm, [0.0, *sorted({place.eps for place in places})]
    figure.update_xaxes(
        title_text=f"Radius ε ({formatting.norm(norm)}, pixels in [0, 1])",
        tickvals=ticks,
        ticktext=[eps_text(eps) if eps else "0" for eps in ticks],
        range=[-0.03 * ticks[-1], 1.05 * ticks[-1]],
    )
    figure.update_yaxes(title_text="Accuracy (%)", range=[-3, 103], tick0=0, dtick=25)
    values = [
        f"{formatting.radius(eps)}: "
        f"at most {formatting.percent(s.worst_case.accuracy)} in the worst case"
        + (f", {formatting.percent(printed[eps].accuracy)} as printed" if eps in printed else "")
        for eps, s in attacked.items()
    ]
    return Chart(
        f"against-radius-{norm}-{list(look).index(label)}",
        label,
        f"Accuracy of {label} against the radius. "
        f"Clean: {formatting.percent(start[0.0].accuracy)}. " + "; ".join(values) + ".",
        figure,
    )


def _other(figure: go.Figure, places: Sequence[Radius], label: str) -> None:
    """Draw another network's worst case in the background."""
    found = {p.eps: s for p in places if (s := p.standings[label]) is not None}
    if found:
        clean = next(iter(found.values())).clean
        figure.add_scatter(
            name=literal(label),
            mode="lines",
            x=[0.0, *found],
            y=[100 * s.accuracy for s in (clean, *(f.worst_case for f in found.values()))],
            line={"color": _FADED, "width": 1.25},
            hoverinfo="skip",
        )


def _line(
    figure: go.Figure,
    scores: Mapping[float, Score],
    name: str,
    *,
    colour: str,
    dash: str,
    symbol: str,
) -> None:
    figure.add_scatter(
        name=name,
        mode="lines+markers",
        x=list(scores),
        y=[100 * score.accuracy for score in scores.values()],
        error_y={**errors(list(scores.values())), "color": colour, "thickness": 1.25},
        line={"color": colour, "width": 2.25, "dash": dash},
        marker={
            "color": colour,
            "size": 8,
            "symbol": symbol,
            "line": {"width": 2, "color": colour},
        },
        customdata=[formatting.scored(score) for score in scores.values()],
        hovertemplate="ε = %{x:.4g}: %{customdata}<extra>%{fullData.name}</extra>",
    )
