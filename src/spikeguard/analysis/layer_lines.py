"""Lines by layer that analyses share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Series

__all__ = [
    "ALL",
    "Line",
    "layer_plot",
    "layers_of",
    "require_margin",
    "stepped",
]

ALL = "all layers"
"""Label of all layers together on the axis "layers"."""

Line = tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None]
"""Values of the layers, and the ends of their intervals."""


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


def layers_of(found: Mapping[str, Measurement], label: str) -> list[str] | list[int]:
    """Return the names of a network's layers for an axis; numbers where networks differ."""
    names = {tuple(m.axes["layer"].tolist()) for m in found.values()}
    own = found[label].axes["layer"].tolist()
    return [str(name) for name in own] if len(names) == 1 else list(range(1, len(own) + 1))


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
        x = layers_of(found, label)
        for (word, line), dash in zip(lines(m).items(), cycle(("solid", "dot", "dash"))):
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
