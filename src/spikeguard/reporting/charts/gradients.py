"""Charts of the attacker's gradient: accuracy by surrogate, and layers that pass no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spikeguard.reporting import formatting
from spikeguard.reporting.charts.base import INK, LEGEND, PAPER, SOFT, Look, blank, literal, tint
from spikeguard.reporting.charts.climbing import HEIGHT, Drawn, level, points
from spikeguard.reporting.readers.audit_evidence import Evidence, Layer

__all__ = ["accuracy_by_surrogate", "silent_layers"]

_TICKS = tuple(step * 10.0**decade for decade in range(-3, 4) for step in (1, 2, 5))
_LETTERS = 56  # letters of layer names that fit below a chart
_DEAD = 99  # S7 fails above this share of a layer, in per cent


def accuracy_by_surrogate(evidence: Evidence, look: Look) -> Drawn | None:
    """Draw PGD with triangles and with the own surrogate at other widths; the own one is a star."""
    sweep = evidence.sweep
    if sweep is None:
        return None
    figure = blank(HEIGHT).update_layout(legend=LEGEND, showlegend=True)
    after = f" after {sweep.tries} tries" if sweep.tries > 1 else ""
    own, worst = (formatting.percent(s.accuracy) for s in (sweep.own_tries, sweep.worst))
    widths = [*sweep.triangles, *sweep.scaled, sweep.own_half_width or 1.0]
    low, high = min(widths) / 1.3, max(widths) * 1.3
    span = math.log10(low), math.log10(high)
    level(figure, sweep.own_tries.accuracy, f"own{after}", span=span, colour=SOFT, dash="solid")
    level(
        figure, sweep.worst.accuracy, "worst of all surrogates", span=span, colour=INK, dash="dot"
    )
    points(figure, sweep.triangles, look, "triangle", "half-width %{x:.3g}", line="solid")
    if sweep.own_half_width is not None:
        scaled = dict(sorted({**sweep.scaled, sweep.own_half_width: sweep.own}.items()))
        points(figure, scaled, look, "own, scaled", "half-width %{x:.3g}", line="dot", is_open=True)
        figure.add_scatter(
            name="own surrogate",
            showlegend=False,
            mode="markers",
            x=[sweep.own_half_width],
            y=[100 * sweep.own.accuracy],
            marker={
                "symbol": "star",
                "size": 17,
                "color": look.colour,
                "line": {"width": 1.5, "color": PAPER},
            },
            customdata=[formatting.scored(sweep.own)],
            hovertemplate="half-width %{x:.3g}: %{customdata}<extra>own surrogate</extra>",
        )
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    figure.update_xaxes(
        title_text="Half-width of the surrogate (log scale)",
        type="log",
        range=span,
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )
    figure.update_yaxes(title_text="Accuracy (%)", range=[-3, 103], tick0=0, dtick=25)
    return figure, f"own surrogate{after} {own}, worst of all surrogates for each sample {worst}"


def silent_layers(evidence: Evidence, look: Look) -> Drawn | None:
    """Draw, for each layer, the share of zero surrogates and of zero entries in the gradient."""
    layers = evidence.layers
    if not layers:
        return None
    figure, names = blank(HEIGHT), [literal(layer.name) for layer in layers]
    x = list(range(1, len(layers) + 1))
    for title, shares, fill in (
        ("surrogate zero", [layer.dead for layer in layers], look.colour),
        ("gradient zero", [layer.zero for layer in layers], tint(look.colour, 0.35)),
    ):
        if any(share is not None for share in shares):
            figure.add_bar(
                name=title,
                x=x,
                y=[None if share is None else 100 * share for share in shares],
                marker={"color": fill},
                customdata=names,
                hovertemplate="%{customdata}: %{y:.1f} %<extra>%{fullData.name}</extra>",
            )
    figure.add_hline(_DEAD, line={"color": SOFT, "width": 1.25, "dash": "dot"})
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.05)
    figure.update_layout(showlegend=True, legend=LEGEND)
    short, every = sum(map(len, names)) <= _LETTERS, -(-len(layers) // 12)
    figure.update_xaxes(
        title_text="Spiking layer",
        range=[0.4, len(layers) + 0.6],
        **({"tickvals": x, "ticktext": names} if short else {"tick0": 0, "dtick": every}),
    )
    figure.update_yaxes(title_text="Share of the layer (%)", range=[0, 103], tick0=0, dtick=25)
    return figure, _worst(layers)


def _worst(layers: Sequence[Layer]) -> str:
    dead = {layer.name: layer.dead for layer in layers if layer.dead is not None}
    if not dead:
        return f"{len(layers)} layers"
    name = max(dead, key=lambda name: dead[name])
    return f"the surrogate is zero for at most {formatting.percent(dead[name])} of a layer ({name})"
