"""Result line and table of the analysis ``synchrony``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spikeguard.analysis.correlation import CONVENTIONS
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Table
from spikeguard.analysis.texts import setting_of

__all__ = ["Numbers", "counts", "quantity_at", "result", "share_range", "signs", "table"]

Numbers = NDArray[np.float64]

_ROWS = (
    ("clean", "observed", "clean"),
    ("failure", "observed", "failure"),
    ("control", "observed", "control"),
    ("failure", "shuffled", "failure, shuffled"),
)


_UNFAILED = "No image failed, however many frames were replaced by noise"
_UNTESTED = "No image was classified right without noise, so none was tested"


def result(found: Mapping[str, Measurement]) -> str:
    """Return the undefined share, and in how many layers the two questions have an answer."""
    seen = {label: m for label, m in found.items() if len(m.axes["layer"])}
    if not seen:
        tested = any(m["right"] for m in found.values())
        return _UNFAILED if tested else _UNTESTED
    layers = sum(len(m.axes["layer"]) for m in seen.values())
    opposite = sum(int((_agreement(m, "failure - clean") == -1).sum()) for m in seen.values())
    both = [_agreed(m, "failure - control") for m in seen.values()]
    more, less = (sum(int((each == sign).sum()) for each in both) for sign in (1, -1))
    return (
        f"{share_range(seen, 'clean')} of the pairs of trains are undefined on clean images, "
        f"{share_range(seen, 'failure')} at failure; how they are counted reverses the sign of the "
        f"change in {opposite} of {layers} layers. Against as many noise frames without failure, "
        f"correlation at failure is higher in {more} layers and lower in {less}"
    )


def share_range(found: Mapping[str, Measurement], condition: str) -> str:
    """Return the smallest and the largest share of undefined pairs of all layers."""
    shares = np.concatenate(
        [quantity_at(m, "undefined", condition=condition) for m in found.values()]
    )
    known = shares[~np.isnan(shares)]  # a layer of one neuron has no pair
    ends = [f"{100 * end:.0f}" for end in (known.min(), known.max())] if len(known) else ["0"]
    return f"{' to '.join(dict.fromkeys(ends))} %"


def quantity_at(m: Measurement, name: str, **at: str) -> Numbers:
    """Return a quantity at labels of some of its axes; the other axes remain."""
    quantity = m.quantities[name]
    place = tuple(
        list(m.axes[axis]).index(at[axis]) if axis in at else slice(None) for axis in quantity.axes
    )
    values: Numbers = quantity.values[place]
    return values


def signs(m: Measurement, change: str, convention: str) -> Numbers:
    """Return 1 or -1 by layer where the interval of a change excludes 0, else 0."""
    at = {"change": change, "convention": convention, "time": "observed"}
    low, high = quantity_at(m, "change_low", **at), quantity_at(m, "change_high", **at)
    return np.where(low > 0, 1.0, np.where(high < 0, -1.0, 0.0))


def _agreement(m: Measurement, change: str) -> Numbers:
    """Return by layer 1 if both conventions give the same sign, -1 for opposite ones, else 0."""
    one, two = (signs(m, change, convention) for convention in CONVENTIONS)
    return one * two


def _agreed(m: Measurement, change: str) -> Numbers:
    """Return by layer the sign that both conventions give, else 0."""
    return np.where(_agreement(m, change) == 1, signs(m, change, CONVENTIONS[0]), 0.0)


def table(found: Mapping[str, Measurement]) -> Table:
    """Return a row for every condition of every network: its last hidden layer."""
    rows = []
    for label, m in found.items():
        if not len(m.axes["layer"]):
            what = "no image failed" if m["right"] else "no image was right"
            rows.append((label, what, *[""] * 8))
            continue
        last = str(m["last"])
        for condition, time, text in _ROWS:
            at = {"layer": last, "condition": condition}
            each = {**at, "time": time}
            rows.append(
                (
                    label,
                    f"{last}, {text}",
                    f"{m.number('images', condition=condition):.0f}",
                    f"{100 * m.number('undefined', **at):.1f} %",
                    *(_interval(m, "mean", convention=c, **each) for c in CONVENTIONS),
                    *(_both(m, name, each) for name in ("kurtosis", "skewness", "p99")),
                    _above(m, each),
                )
            )
    head = (
        *("Network", "Last hidden layer", "n", "Undefined pairs"),
        *("Mean correlation, undefined left out", "Mean correlation, undefined = 0"),
        *("Kurtosis", "Skewness", "99th percentile", "Above 0.9"),
    )
    caption = (
        f"{counts(found)} Mean over images with 95 % interval. Kurtosis (0 for a normal "
        "distribution) to 'above 0.9' describe the matrix averaged over images, each pair of "
        "neurons once: undefined left out / undefined = 0. Control: the same images with as many "
        "noise frames, drawn again until the class was right (at most 8 times). Shuffled: every "
        "train of the failure with its steps in random order. Of a layer with more than "
        f"{setting_of(found, 'neurons')} neurons a random sample of that many."
    )
    return Table(head, rows, caption)


def counts(found: Mapping[str, Measurement]) -> str:
    """Return how many images were right, and how many of them never failed."""
    parts = [
        f"{label} {m['never']} of {m['right']} (of {m.samples} images)"
        for label, m in found.items()
    ]
    return f"Images that were right and never failed: {', '.join(parts)}."


def _interval(m: Measurement, name: str, **at: str) -> str:
    middle, low, high = (m.number(f"{name}{end}", **at) for end in ("", "_low", "_high"))
    if not np.isfinite(low):
        return _short(middle)
    n = m.number("defined", **{key: at[key] for key in ("layer", "condition", "convention")})
    return f"{middle:.3f} [{low:.3f}, {high:.3f}], n = {n:.0f}"


def _both(m: Measurement, name: str, at: Mapping[str, str]) -> str:
    return " / ".join(_short(m.number(name, convention=c, **at)) for c in CONVENTIONS)


def _above(m: Measurement, at: Mapping[str, str]) -> str:
    return " / ".join(
        f"{m.number('above', convention=c, **at):.0f} of "
        f"{m.number('pairs', convention=c, **at):.0f}"
        for c in CONVENTIONS
    )


def _short(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"
