"""Result line, table and charts of the analysis ``synchrony``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeguard.analysis.correlation import CONVENTIONS
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Heat, Plot, Rule, Series, Table
from spikeguard.system.intervals import wilson

__all__ = ["plots", "result", "table"]

Numbers = NDArray[np.float64]

_DEPTH = "Spiking layer, 1 is next to the image"
_ROWS = (
    ("clean", "observed", "clean"),
    ("failure", "observed", "failure"),
    ("control", "observed", "control"),
    ("failure", "shuffled", "failure, shuffled"),
)


def result(found: Mapping[str, Measurement]) -> str:
    """Return the undefined share, and in how many layers the two questions have an answer."""
    seen = {label: m for label, m in found.items() if len(m.axes["layer"])}
    if not seen:
        return "No image failed, however many frames were replaced by noise"
    layers = sum(len(m.axes["layer"]) for m in seen.values())
    opposite = sum(int((_agreement(m, "failure - clean") == -1).sum()) for m in seen.values())
    both = [_agreed(m, "failure - control") for m in seen.values()]
    more, less = (sum(int((each == sign).sum()) for each in both) for sign in (1, -1))
    return (
        f"{_range(seen, 'clean')} of the pairs of trains are undefined on clean images, "
        f"{_range(seen, 'failure')} at failure; how they are counted reverses the sign of the "
        f"change in {opposite} of {layers} layers. Against as many noise frames without failure, "
        f"correlation at failure is higher in {more} layers and lower in {less}"
    )


def _range(found: Mapping[str, Measurement], condition: str) -> str:
    """Return the smallest and the largest share of undefined pairs of all layers."""
    shares = np.concatenate([_of(m, "undefined", condition=condition) for m in found.values()])
    return f"{100 * np.nanmin(shares):.0f} to {100 * np.nanmax(shares):.0f} %"


def _of(m: Measurement, name: str, **at: str) -> Numbers:
    """Return a quantity at labels of some of its axes; the other axes remain."""
    quantity = m.quantities[name]
    place = tuple(
        list(m.axes[axis]).index(at[axis]) if axis in at else slice(None) for axis in quantity.axes
    )
    values: Numbers = quantity.values[place]
    return values


def _signs(m: Measurement, change: str, convention: str) -> Numbers:
    """Return 1 or -1 by layer where the interval of a change excludes 0, else 0."""
    at = {"change": change, "convention": convention, "time": "observed"}
    low, high = _of(m, "change_low", **at), _of(m, "change_high", **at)
    return np.where(low > 0, 1.0, np.where(high < 0, -1.0, 0.0))


def _agreement(m: Measurement, change: str) -> Numbers:
    """Return by layer 1 if both conventions give the same sign, -1 for opposite ones, else 0."""
    one, two = (_signs(m, change, convention) for convention in CONVENTIONS)
    return one * two


def _agreed(m: Measurement, change: str) -> Numbers:
    """Return by layer the sign that both conventions give, else 0."""
    return np.where(_agreement(m, change) == 1, _signs(m, change, CONVENTIONS[0]), 0.0)


def table(found: Mapping[str, Measurement]) -> Table:
    """Return a row for every condition of every network: its last hidden layer."""
    rows = []
    for label, m in found.items():
        if not len(m.axes["layer"]):
            rows.append((label, "no image failed", *[""] * 8))
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
        f"{_counts(found)} Mean over images with 95 % interval. Kurtosis (0 for a normal "
        "distribution) to 'above 0.9' describe the matrix averaged over images, each pair of "
        "neurons once: undefined left out / undefined = 0. Control: the same images with as many "
        "noise frames, drawn again until the class was right (at most 8 times). Shuffled: every "
        "train of the failure with its steps in random order. Of a layer with more than "
        f"{next(iter(found.values())).settings['neurons']} neurons a random sample of that many."
    )
    return Table(head, rows, caption)


def _counts(found: Mapping[str, Measurement]) -> str:
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


def plots(found: Mapping[str, Measurement]) -> list[Plot]:
    """Return frames to failure, undefined pairs, changes by layer, and matrices."""
    seen = {label: m for label, m in found.items() if len(m.axes["layer"])}
    charts = [_frames(found)]
    if seen:
        charts += [_undefined(seen), _change(seen, "left out"), _change(seen, "zero")]
        charts += [
            chart for n, (label, m) in enumerate(seen.items()) for chart in _matrices(n, label, m)
        ]
    return charts


def _frames(found: Mapping[str, Measurement]) -> Plot:
    marks = []
    for label, m in found.items():
        right, never = int(m["right"]), int(m["never"])
        counts = [*m["failures"].tolist(), never] if right else []
        ends = np.array([wilson(count, right) for count in counts]).reshape(-1, 2)
        names = [*(f"after {k}" for k in m.axes["frames"].tolist()), "never"][: len(counts)]
        share = [100 * count / right for count in counts]
        low, high = 100 * ends[:, 0], 100 * ends[:, 1]
        marks.append(Series(names, share, label, label, low, high, kind="bars"))
    return Plot(
        "frames",
        "Noise frames until the network fails",
        f"{_counts(found)} 95 % intervals.",
        marks,
        x_title="First wrong class after this many noise frames",
        y_title="Images that were right (%)",
        width="half",
        height=300,
    )


def _undefined(found: Mapping[str, Measurement]) -> Plot:
    marks = []
    for label, m in found.items():
        for condition, dash in (("clean", "solid"), ("failure", "dash")):
            y, low, high = (
                100 * _of(m, f"undefined{end}", condition=condition)
                for end in ("", "_low", "_high")
            )
            name = f"{label}, {condition}"
            marks.append(Series(_depth(m), y, name, label, low, high, dash=dash))  # type: ignore[arg-type]
    return Plot(
        "undefined",
        "Undefined correlations",
        f"Pairs of neurons with at least one constant spike train, whose correlation is 0/0: "
        f"{_range(found, 'clean')} on clean images, "
        f"{_range(found, 'failure')} at failure.",
        marks,
        x_title=_DEPTH,
        y_title="Undefined pairs (%)",
        y_range=(0, 100),
        width="half",
        height=300,
    )


def _change(found: Mapping[str, Measurement], convention: str) -> Plot:
    marks = []
    null = np.zeros(max(len(m.axes["layer"]) for m in found.values()))
    for label, m in found.items():
        for change, dash in (("failure", "solid"), ("control", "dash")):
            at = {"change": f"{change} - clean", "convention": convention}
            y, low, high = (
                _of(m, f"change{end}", time="observed", **at) for end in ("", "_low", "_high")
            )
            name = f"{label}, {change}"
            marks.append(Series(_depth(m), y, name, label, low, high, dash=dash))  # type: ignore[arg-type]
            seen = np.abs(np.nan_to_num(_of(m, "change", time="shuffled", **at)))
            null[: len(seen)] = np.maximum(null[: len(seen)], seen)
    depth = np.arange(1, len(null) + 1)
    marks.append(Series(depth, 0 * null, "shuffled time", "", -null, null, dash="dot"))
    told = "left out" if convention == "left out" else "taken as 0"
    risen = sum(int((_signs(m, "failure - clean", convention) > 0).sum()) for m in found.values())
    fallen = sum(int((_signs(m, "failure - clean", convention) < 0).sum()) for m in found.values())
    return Plot(
        "left-out" if convention == "left out" else "as-zero",
        f"Change of the mean correlation, undefined pairs {told}",
        f"Against the same images without noise, the correlation rises in {risen} layers and falls "
        f"in {fallen} (95 % intervals that exclude 0). The control has as many noise frames and "
        f"does not fail. With shuffled time every change is within {null.max():.3f} of 0.",
        marks,
        x_title=_DEPTH,
        y_title="Change of correlation",
        rules=[Rule(0, axis="y")],
        width="half",
        height=340,
    )


def _depth(m: Measurement) -> list[int]:
    return list(range(1, len(m.axes["layer"]) + 1))


def _matrices(number: int, label: str, m: Measurement) -> list[Plot]:
    places = list(range(1, len(m.axes["row"]) + 1))
    return [
        Plot(
            f"matrix-{number}-{place}",
            f"{m['last']}: {_ROWS[place][2]}",
            f"Correlations of {len(places)} neurons of the layer, averaged over the images in "
            f"which they are defined: median {np.nanmedian(_off_diagonal(grid)):.2f}, "
            f"{100 * np.isnan(_off_diagonal(grid)).mean():.0f} % of the pairs are defined in no "
            "image (empty).",
            [Heat(grid, places, places, "correlation", -1, 1, diverging=True, image=True)],
            network=label,
            width="small",
        )
        for place, grid in enumerate(m["matrix"])
    ]


def _off_diagonal(grid: NDArray[Any]) -> NDArray[Any]:
    """Return the entries beside the diagonal; of a matrix of one neuron, NaN."""
    values = grid[~np.eye(len(grid), dtype=bool)]
    return values if len(values) else np.array([np.nan])
