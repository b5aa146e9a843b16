"""Charts of the analysis ``synchrony``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Heat, Plot, Rule, Series
from spikeguard.analysis.synchrony_results import ROWS, counts, quantity_at, share_range, signs
from spikeguard.system.intervals import wilson

__all__ = ["plots"]

_DEPTH = "Spiking layer, 1 is next to the image"


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
        failed = [*m["failures"].tolist(), never] if right else []
        ends = np.array([wilson(count, right) for count in failed]).reshape(-1, 2)
        names = [*(f"after {k}" for k in m.axes["frames"].tolist()), "never"][: len(failed)]
        share = [100 * count / right for count in failed]
        low, high = 100 * ends[:, 0], 100 * ends[:, 1]
        marks.append(Series(names, share, label, label, low, high, kind="bars"))
    return Plot(
        "frames",
        "Noise frames until the network fails",
        f"{counts(found)} 95 % intervals.",
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
                100 * quantity_at(m, f"undefined{end}", condition=condition)
                for end in ("", "_low", "_high")
            )
            name = f"{label}, {condition}"
            marks.append(Series(_depth(m), y, name, label, low, high, dash=dash))  # type: ignore[arg-type]
    return Plot(
        "undefined",
        "Undefined correlations",
        f"Pairs of neurons with at least one constant spike train, whose correlation is 0/0: "
        f"{share_range(found, 'clean')} on clean images, "
        f"{share_range(found, 'failure')} at failure.",
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
                quantity_at(m, f"change{end}", time="observed", **at)
                for end in ("", "_low", "_high")
            )
            name = f"{label}, {change}"
            marks.append(Series(_depth(m), y, name, label, low, high, dash=dash))  # type: ignore[arg-type]
            seen = np.abs(np.nan_to_num(quantity_at(m, "change", time="shuffled", **at)))
            null[: len(seen)] = np.maximum(null[: len(seen)], seen)
    depth = np.arange(1, len(null) + 1)
    marks.append(Series(depth, 0 * null, "shuffled time", "", -null, null, dash="dot"))
    told = "left out" if convention == "left out" else "taken as 0"
    risen = sum(int((signs(m, "failure - clean", convention) > 0).sum()) for m in found.values())
    fallen = sum(int((signs(m, "failure - clean", convention) < 0).sum()) for m in found.values())
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
    charts = []
    for place, grid in enumerate(m["matrix"]):
        pairs = grid[~np.eye(len(grid), dtype=bool)]
        known = pairs[~np.isnan(pairs)]
        charts.append(
            Plot(
                f"matrix-{number}-{place}",
                f"{m['last']}: {ROWS[place][2]}",
                f"Correlations of {len(places)} neurons of the layer, averaged over the images in "
                f"which they are defined. {100 * (known > 0).sum() / max(1, len(pairs)):.0f} % of "
                f"the pairs are positive, {100 * (known < 0).sum() / max(1, len(pairs)):.0f} % "
                f"negative; {100 - 100 * len(known) / max(1, len(pairs)):.0f} % are defined in no "
                "image and empty.",
                [Heat(grid, places, places, "correlation", -1, 1, diverging=True, image=True)],
                network=label,
                width="small",
            )
        )
    return charts
