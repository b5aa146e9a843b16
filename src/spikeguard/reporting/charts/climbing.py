"""Charts of the strength of the audited attack: loss and accuracy by step, accuracy by eps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from spikeguard.config.schema import eps_text
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting import formatting
from spikeguard.reporting.charts.base import INK, LEGEND, SHADE, SOFT, Look, blank, errors, tint
from spikeguard.reporting.readers.audit_evidence import Evidence

__all__ = ["HEIGHT", "accuracy_by_eps", "accuracy_by_step", "level", "loss_by_step", "points"]

HEIGHT = 270
Drawn = tuple[go.Figure, str]


def loss_by_step(evidence: Evidence, look: Look) -> Drawn | None:
    """Draw mean and quartiles of the loss at each step; the judged steps are shaded."""
    climb = evidence.climb
    if climb is None:
        return None
    figure, last = blank(HEIGHT), len(climb.mean) - 1
    steps = list(range(last + 1))
    if climb.last:
        figure.add_vrect(last - climb.last, last, fillcolor=SHADE, line_width=0, layer="below")
    _band(figure, steps, climb.low, climb.high, look)
    figure.add_scatter(
        name="mean",
        mode="lines",
        x=steps,
        y=list(climb.mean),
        line={"color": look.colour, "width": 2.25},
        hovertemplate="step %{x}: %{y:.3g}<extra>mean loss</extra>",
    )
    whose = f"the {climb.resisting} that resist" if climb.resisting else "all samples"
    figure.update_xaxes(title_text="Step", range=[0, 1.02 * max(last, 1)], nticks=8)
    figure.update_yaxes(title_text=f"Loss of {whose}", nticks=6)
    numbers = [value for value in climb.mean if value is not None]
    ends = f" from {numbers[0]:.3g} to {numbers[-1]:.3g}" if numbers else ""
    return figure, f"mean loss of {whose}{ends} in {last} steps"


def accuracy_by_step(evidence: Evidence, look: Look) -> Drawn | None:
    """Draw accuracy along one search, and after all steps and after twice as many."""
    steps = evidence.steps
    if steps is None:
        return None
    figure, along = blank(HEIGHT), list(range(len(steps.along)))
    if along:
        low = [100 * score.low for score in steps.along]
        _band(figure, along, low, [100 * score.high for score in steps.along], look)
        figure.add_scatter(
            name="one search",
            mode="lines",
            x=along,
            y=[100 * score.accuracy for score in steps.along],
            line={"color": look.colour, "width": 2.25, "shape": "hv"},
            customdata=[formatting.scored(score) for score in steps.along],
            hovertemplate="step %{x}: %{customdata}<extra>one search</extra>",
        )
    points(figure, steps.ended, look, "the reported attack", "%{x} steps")
    last = max([*along, *steps.ended])
    figure.update_xaxes(title_text="Steps", range=[0, 1.05 * max(last, 1)], nticks=8)
    _percent(figure)
    values = [f"{formatting.percent(s.accuracy)} after {n} steps" for n, s in steps.ended.items()]
    return figure, "; ".join(values) or f"{along[-1]} steps"


def accuracy_by_eps(evidence: Evidence, look: Look) -> Drawn | None:
    """Draw accuracy under PGD around the audited radius and far beyond it, on a log axis."""
    radii = evidence.radii
    if radii is None:
        return None
    figure = blank(HEIGHT).update_layout(legend=LEGEND, showlegend=True)
    shown = [*radii.pgd, *radii.far, radii.eps]
    span = math.log10(min(shown)) - 0.12, math.log10(max(shown)) + 0.12
    if radii.clean is not None:
        level(figure, radii.clean.accuracy, "clean", span=span, colour=SOFT, dash="solid")
    if radii.chance is not None:
        level(figure, radii.chance, "chance", span=span, colour=SOFT, dash="dot")
    points(figure, radii.pgd, look, "PGD", "ε = %{x:.4g}", line="solid")
    if radii.pgd and radii.far:
        joint = {eps: radii.pgd[eps] for eps in [max(radii.pgd)]}
        figure.add_scatter(
            mode="lines",
            showlegend=False,
            x=[*joint, *radii.far],
            y=[100 * score.accuracy for score in (*joint.values(), *radii.far.values())],
            line={"color": look.colour, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
        )
    points(figure, radii.far, look, "short PGD", "ε = %{x:.4g}", is_open=True)
    values = [
        f"{formatting.percent(s.accuracy)} at {formatting.radius(eps)}"
        for eps, s in radii.pgd.items()
    ]
    values += [
        f"{formatting.percent(s.accuracy)} at {formatting.radius(eps)}"
        for eps, s in radii.far.items()
    ]
    if radii.bound is not None:
        _bound(figure, radii.eps, radii.bound)
        values.append(f"{formatting.percent(radii.bound.accuracy)} under the worst of all attacks")
    ticks = sorted({radii.eps, *radii.pgd, *radii.far})
    figure.update_xaxes(
        title_text="Radius ε (log scale, pixels in [0, 1])",
        type="log",
        range=span,
        tickvals=ticks,
        ticktext=[eps_text(eps) for eps in ticks],
    )
    _percent(figure)
    return figure, "; ".join(values)


def points(
    figure: go.Figure,
    scores: Mapping[float, Score] | Mapping[int, Score],
    look: Look,
    name: str,
    where: str,
    *,
    line: str | None = None,
    is_open: bool = False,
) -> None:
    """Draw accuracies with their intervals; ``line`` is the dash style that joins them, or None."""
    found = list(scores.values())
    figure.add_scatter(
        name=name,
        mode="lines+markers" if line else "markers",
        showlegend=False,
        x=list(scores),
        y=[100 * score.accuracy for score in found],
        error_y={**errors(found), "color": look.colour, "thickness": 1.25},
        line={"color": look.colour, "width": 2, "dash": line},
        marker={
            "color": look.colour,
            "size": 8,
            "symbol": f"{look.shape}-open" if is_open else look.shape,
            "line": {"width": 2, "color": look.colour},
        },
        customdata=[formatting.scored(score) for score in found],
        hovertemplate=f"{where}: %{{customdata}}<extra>{name}</extra>",
    )


def level(
    figure: go.Figure, accuracy: float, text: str, *, span: Sequence[float], colour: str, dash: str
) -> None:
    """Draw an accuracy as a horizontal line with a legend entry; ``span`` is in powers of ten."""
    figure.add_scatter(
        name=f"{text} {formatting.percent(accuracy)}",
        showlegend=True,
        mode="lines",
        x=[10**end for end in span],
        y=[100 * accuracy] * 2,
        line={"color": colour, "width": 1.5, "dash": dash},
        hoverinfo="skip",
    )


def _bound(figure: go.Figure, eps: float, bound: Score) -> None:
    figure.add_scatter(
        name=f"worst of all attacks {formatting.percent(bound.accuracy)}",
        showlegend=True,
        mode="markers",
        x=[eps],
        y=[100 * bound.accuracy],
        marker={"symbol": "line-ew", "size": 22, "line": {"width": 3, "color": INK}},
        customdata=[formatting.scored(bound)],
        hovertemplate="worst of all attacks: %{customdata}<extra></extra>",
    )


def _band(
    figure: go.Figure,
    x: Sequence[int],
    low: Sequence[float | None],
    high: Sequence[float | None],
    look: Look,
) -> None:
    inside = [
        (at, bottom, top)
        for at, bottom, top in zip(x, low, high, strict=True)
        if bottom is not None and top is not None
    ]
    there, back = inside, inside[::-1]
    figure.add_scatter(
        mode="lines",
        x=[at for at, _, _ in there] + [at for at, _, _ in back],
        y=[top for _, _, top in there] + [bottom for _, bottom, _ in back],
        fill="toself",
        fillcolor=tint(look.colour, 0.16),
        line={"width": 0},
        hoverinfo="skip",
    )


def _percent(figure: go.Figure) -> None:
    figure.update_yaxes(title_text="Accuracy (%)", range=[-3, 103], tick0=0, dtick=25)
