"""Charts of accuracy under each attack, and of accuracy against the radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import plotly.graph_objects as go

from spikeguard.attacks.threat_names import is_event_norm
from spikeguard.config.schema import eps_text
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting import formatting
from spikeguard.reporting.charts.base import FADED, SHADE, Chart, Look, blank, errors, literal, tint
from spikeguard.reporting.standings import Radius

__all__ = ["against_radius", "per_attack"]

_ROW = 0.7  # of the height of a row is taken by its marks


def per_attack(radius: Radius, look: Mapping[str, Look]) -> Chart:
    """Return a dot plot of accuracy under each attack: strongest attack first, a mark a network."""
    scores = {
        label: {"clean": standing.clean, **standing.attacks, "worst_case": standing.worst_case}
        for label, standing in radius.attacked.items()
    }
    names = ["worst_case", *_strongest_first(radius.attacks, scores), "clean"]
    step = _ROW / len(scores)  # the marks of a row are one below the other
    figure = blank(height=70 + len(names) * (14 + 9 * len(scores)))
    for place, (label, found) in enumerate(scores.items()):
        shown = {row: found[name] for row, name in enumerate(names) if name in found}
        marks = list(shown.values())
        figure.add_scatter(
            name=literal(label),
            mode="markers",
            x=[100 * score.accuracy for score in marks],
            y=[row + step * (place - (len(scores) - 1) / 2) for row in shown],
            error_x={**errors(marks), "color": look[label].colour, "thickness": 1.5, "width": 3},
            marker={"color": look[label].colour, "symbol": look[label].shape, "size": 9},
            customdata=[
                f"<b>{literal(formatting.attack(names[row]))}</b><br>{formatting.scored(score)}"
                for row, score in shown.items()
            ],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )
    figure.add_hrect(-0.5, 0.5, fillcolor=SHADE, line_width=0, layer="below")
    strong, rows = (radius.printed, "worst_case"), [literal(formatting.attack(n)) for n in names]
    figure.update_xaxes(title_text="Accuracy (%)", range=[-2, 102], dtick=20, tick0=0)
    figure.update_yaxes(
        title={"text": "Attack", "standoff": 12},
        tickvals=list(range(len(names))),
        ticktext=[
            f"<b>{row}</b>" if name in strong else row
            for name, row in zip(names, rows, strict=True)
        ],
        range=[len(names) - 0.5, -0.5],
    )
    return Chart(
        f"per-attack-{radius.norm}-{radius.eps:g}".replace(".", "_").replace(" ", "_"),
        formatting.threat(radius.norm, radius.eps),
        "Accuracy with its 95 % interval under each attack, the strongest attack first, one mark "
        "for each network; the first row is the worst case over all attacks. The table below has "
        "the numbers.",
        figure,
    )


def _strongest_first(
    attacks: Sequence[str], scores: Mapping[str, Mapping[str, Score]]
) -> list[str]:
    """Sort attacks by the mean accuracy that they leave to the networks they were run on."""

    def left(name: str) -> float:
        return fmean(found[name].accuracy for found in scores.values() if name in found)

    return sorted(attacks, key=left)


def _axis(norm: str) -> str:
    if is_event_norm(norm):
        return f"Budget of changes ({norm})"
    kind, _, words = norm.partition(" ")
    values = f"inputs in [0, {words.removeprefix('peak=')}]" if words else "pixels in [0, 1]"
    return f"Radius ε ({formatting.norm(kind)}, {values})"


def against_radius(places: Sequence[Radius], label: str, look: Mapping[str, Look]) -> Chart:
    """Return accuracy of one network against the radius: as printed, and in the worst case."""
    attacked = {p.eps: s for p in places if (s := p.standings[label]) is not None}
    start = {0.0: next(iter(attacked.values())).clean}
    worst = start | {eps: s.worst_case for eps, s in attacked.items()}
    printed = {e: s.attacks[s.printed] for e, s in attacked.items() if s.printed is not None}
    colour, shape = look[label].colour, look[label].shape
    figure = blank(height=250)
    for other in (o for o in look if o != label):
        _other(figure, places, other, name=None if figure.data else "other networks, worst case")
    if printed:
        style = {"colour": colour, "dash": "dash", "symbol": f"{shape}-open"}
        _line(figure, start | printed, "PGD, own surrogate", **style)
    _line(figure, worst, "Worst case", colour=colour, dash="solid", symbol=shape)
    if printed.keys() == attacked.keys():
        figure.data[-1].update(fill="tonexty", fillcolor=tint(colour, 0.16))
    norm, ticks = places[0].norm, [0.0, *sorted({place.eps for place in places})]
    figure.update_xaxes(
        title_text=_axis(norm),
        tickvals=ticks,
        ticktext=[eps_text(eps) if eps else "0" for eps in ticks],
        range=[-0.03 * ticks[-1], 1.05 * ticks[-1]],
    )
    figure.update_yaxes(title_text="Accuracy (%)", range=[-3, 103], tick0=0, dtick=25)
    values = [
        f"{formatting.radius(eps, norm)}: "
        f"at most {formatting.percent(s.worst_case.accuracy)} in the worst case"
        + (f", {formatting.percent(printed[eps].accuracy)} as printed" if eps in printed else "")
        for eps, s in attacked.items()
    ]
    return Chart(
        f"against-radius-{norm}-{list(look).index(label)}".replace(" ", "_"),
        label,
        f"Accuracy of {label} against the radius. "
        f"Clean: {formatting.percent(start[0.0].accuracy)}. " + "; ".join(values) + ".",
        figure,
    )


def _other(figure: go.Figure, places: Sequence[Radius], label: str, *, name: str | None) -> None:
    """Draw another network's worst case in the background; ``name`` is for the legend."""
    found = {p.eps: s for p in places if (s := p.standings[label]) is not None}
    if found:
        clean = next(iter(found.values())).clean
        figure.add_scatter(
            name=name,
            mode="lines",
            x=[0.0, *found],
            y=[100 * s.accuracy for s in (clean, *(f.worst_case for f in found.values()))],
            line={"color": FADED, "width": 1.25},
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
