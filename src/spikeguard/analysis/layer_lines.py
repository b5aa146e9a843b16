"""Texts and lines by layer that the analyses of membrane potentials share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Series

__all__ = [
    "ALL",
    "Line",
    "layer_plot",
    "listed",
    "percent",
    "require_margin",
    "share_text",
    "signed",
    "stepped",
    "with_interval",
]

ALL = "all layers"
"""Label of all layers together on the axis "layers"."""

Line = tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None]
"""Values of the layers, and the ends of their intervals."""


def percent(share: float) -> str:
    """Write a share in [0, 1]: "61.4 %"; "-" for NaN."""
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def signed(change: float) -> str:
    """Write a relative change: "-64 %", with a minus sign; "-" for NaN."""
    if math.isnan(change):
        return "-"
    return f"{100 * change:+.0f} %".replace("-", "\N{MINUS SIGN}")


def with_interval(value: float, low: float, high: float) -> str:
    """Write a share with its interval: "61.4 % [57.0, 65.6]"."""
    if math.isnan(low) or math.isnan(value):
        return percent(value)
    return f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def share_text(m: Measurement, name: str, **at: object) -> str:
    """Write a share of a measurement and its interval, of which the names end in _low, _high."""
    return with_interval(*(m.number(name + end, **at) for end in ("", "_low", "_high")))


def listed(texts: Mapping[str, str]) -> str:
    """Write a text for each network; the label is left out for one network."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{label} {text}" for label, text in texts.items())


def require_margin(owner: str, margin: float) -> None:
    """Raise a ValueError unless a margin is a number > 0."""
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"{owner}: margin is a distance in units of v_th, > 0, got {margin:g}.")


def stepped(m: Measurement, name: str, **at: object) -> Line:
    """Return a share over all axes but the one not in ``at``, and its interval."""
    quantity = m.quantities[name]
    place = tuple(
        int(np.flatnonzero(m.axes[axis] == at[axis])[0]) if axis in at else slice(None)
        for axis in quantity.axes
    )
    return m[name][place], m[f"{name}_low"][place], m[f"{name}_high"][place]


def layer_plot(
    found: Mapping[str, Measurement],
    lines: Callable[[Measurement], Mapping[str, Line]],
    *,
    name: str,
    title: str,
    summary: str,
    y_title: str,
    width: Literal["half", "full"] = "full",
) -> Plot:
    """Return a chart of shares by spiking layer, in per cent.

    Args:
        found: Measurements by network, each with an axis "layer".
        lines: Returns the lines of a network by the word that tells them apart; values [layers].
        name: See :class:`Plot`, as the rest.
        title: Heading.
        summary: The finding.
        y_title: Title of the axis.
        width: See :class:`Plot`.
    """
    names = {tuple(m.axes["layer"].tolist()) for m in found.values()}
    marks, top = [], 0.0
    for label, m in found.items():
        layers = m.axes["layer"].tolist()
        x = layers if len(names) == 1 else list(range(1, len(layers) + 1))
        for (word, line), dash in zip(lines(m).items(), ("solid", "dot", "dash"), strict=False):
            y, low, high = (None if part is None else 100 * part[: len(x)] for part in line)
            text = f"{label}, {word}" if word else label
            marks.append(Series(x, y, text, label, low, high, dash=dash))  # type: ignore[arg-type]
            top = max(top, float(np.nanmax(y if high is None else high, initial=0.0)))  # type: ignore[arg-type]
    return Plot(
        name,
        title,
        summary,
        marks,
        x_title="Spiking layer" + ("" if len(names) == 1 else ", from the image on"),
        y_title=y_title,
        y_range=(0, min(100.0, 1.08 * top) or 1),
        width=width,
    )
