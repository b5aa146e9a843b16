"""Charts and table of the analysis ``perturbation``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Heat, Plot, Rule, Series, Table
from spikeguard.analysis.texts import half_text, images_of, shared
from spikeguard.system.pixel_units import fraction_text

__all__ = ["perturbation_plots", "perturbation_table"]

_ATTACK, _RANDOM = 0, 1


def perturbation_plots(found: Mapping[str, Measurement], result: str) -> list[Plot]:
    """Return the distances over eps (Fig. 3), the error by layer and step, and eps over steps."""
    return [
        _error_by_layer(found, result),
        _over_steps(found),
        *_over_eps(found),
        *_errors_by_step(found),
    ]


def has_gates(m: Measurement) -> bool:
    """Whether the gates of DLIF change the simplified recursion."""
    return bool((m["plain"] != m["gated"]).any())


def _error_by_layer(found: Mapping[str, Measurement], result: str) -> Plot:
    marks = []
    for label, m in found.items():
        place = _places(m)
        kinds = [("plain", "", "solid")]
        if has_gates(m):
            kinds.append(("gated", ", with gates", "dash"))
        for name, more, dash in kinds:
            y, half = 100 * m[f"{name}_error"][_ATTACK, -1], 100 * m[f"{name}_error_half"]
            marks.append(_line(place, y, half[_ATTACK, -1], f"{label}{more}", label, dash))
    return Plot(
        "error-by-layer",
        "Error of the simplified recursion by layer",
        f"{result}. Bars are 95 % intervals over images.",
        marks,
        x_title="Spiking layer, in network order",
        y_title="Error (%)",
        y_range=(0, _top(marks, 110)),
        rules=[Rule(100, "no perturbation predicted", "y")],
    )


def _over_steps(found: Mapping[str, Measurement]) -> Plot:
    marks = []
    for label, m in found.items():
        step = [str(step) for step in m.axes["step"]]
        for name, text, dash in (("true", "true", "solid"), ("plain", "simplified", "dash")):
            y = np.sqrt(m[name][_ATTACK, -1, -1])
            named = label if text == "true" else f"{label}, {text}"
            legend = text == "true"
            marks.append(Series(step, y, named, label, dash=dash, legend=legend))  # type: ignore[arg-type]
    grows = {
        label: float(np.sqrt(m["plain"][_ATTACK, -1, -1, -1] / m["true"][_ATTACK, -1, -1, -1]))
        for label, m in found.items()
        if m["true"][_ATTACK, -1, -1, -1] > 0
    }
    words = ", ".join(f"{value:.1f} ({label})" for label, value in grows.items())
    return Plot(
        "over-steps",
        "Last layer step by step: true (solid), simplified (dashed)",
        f"At the last step the simplified perturbation is as large as the true one times {words}.",
        marks,
        x_title="Time step",
        y_title="RMS of eps (v_th)",
        y_range=(0, _top(marks, 0)),
    )


def _over_eps(found: Mapping[str, Measurement]) -> Iterator[Plot]:
    """Yield one chart a distance, in the last layer, attack and random."""
    shown = (
        ("plain_all", "plain_all_half", "MS-MPPD", "MS-MPPD (v_th²)"),
        ("tasad", "tasad_half", "TASAD", "TASAD (norm of rates)"),
        ("std", "std_half", "STD", "STD (norm of spikes)"),
    )
    for name, half_name, title, y_title in shown:
        marks, ratios = [], []
        for label, m in found.items():
            y, half = m[name][:, :, -1], m[half_name][:, :, -1]
            if name in ("tasad", "std"):
                y, half = y[..., -1], half[..., -1]
            start = 1 if title == "MS-MPPD" else 0  # its axis is logarithmic, without radius 0
            eps, y, half = m.axes["eps"][start:], y[:, start:], half[:, start:]
            marks += [
                _line(eps, y[_ATTACK], half[_ATTACK], label, label, "solid"),
                _line(eps, y[_RANDOM], half[_RANDOM], f"{label}, random", label, "dot"),
            ]
            if y[_RANDOM, -1] > 0:
                ratios.append(f"{y[_ATTACK, -1] / y[_RANDOM, -1]:.1f} ({label})")
        yield Plot(
            f"{title.lower()}-over-eps",
            f"{title} in the last layer: attack (solid), random (dotted)",
            f"{title} at the largest radius, attack over a random perturbation of the same L2 "
            f"norm: {', '.join(ratios) or 'not defined'}.",
            marks,
            x_title="Radius of the attack",
            y_title=y_title,
            y_log=title == "MS-MPPD",
            y_range=None if title == "MS-MPPD" else (0, _top(marks, 0)),
        )


def _errors_by_step(found: Mapping[str, Measurement]) -> Iterator[Plot]:
    """Yield one grid a network, all on one scale: error by layer and step."""
    grids = {label: 100 * m["plain_error_by_step"][_ATTACK, -1] for label, m in found.items()}
    top = max([100.0, *(float(np.nanmax(g)) for g in grids.values() if np.isfinite(g).any())])
    for place, (label, grid) in enumerate(grids.items()):
        m = found[label]
        worst = float(np.nanmax(grid)) if np.isfinite(grid).any() else float("nan")
        yield Plot(
            f"error-by-step-{place}",
            "Error by layer and step",
            f"{label}: the largest error of the simplified recursion is {worst:.0f} % of the true "
            "perturbation.",
            [
                Heat(
                    grid,
                    [str(step) for step in m.axes["step"]],
                    _places(m),
                    "Error (%)",
                    low=0,
                    high=top,
                )
            ],
            x_title="Time step",
            y_title="Spiking layer",
            network=label,
            width="small" if len(grids) > 1 else "half",
            height=220,
        )


def perturbation_table(found: Mapping[str, Measurement]) -> Table:
    """Return a row for every layer of every network, at the largest radius."""
    rows = []
    gates = any(has_gates(m) for m in found.values())
    for label, m in found.items():
        at = (_ATTACK, -1)
        for place, layer in enumerate(m.axes["layer"]):
            rows.append(
                (
                    label,
                    str(layer),
                    _number(m["true_all"], m["true_all_half"], (*at, place)),
                    _number(m["plain_all"], m["plain_all_half"], (*at, place)),
                    _share(m["plain_error"], m["plain_error_half"], (*at, place)),
                    *(
                        [_share(m["gated_error"], m["gated_error_half"], (*at, place))]
                        if gates
                        else []
                    ),
                    _number(m["plain_all"], m["plain_all_half"], (_RANDOM, -1, place)),
                    _number(m["tasad"], m["tasad_half"], (*at, place, -1)),
                    _number(m["std"], m["std_half"], (*at, place, -1)),
                )
            )
    radius = {label: fraction_text(float(m.axes["eps"][-1])) for label, m in found.items()}
    return Table(
        (
            "Network",
            "Layer",
            "True",
            "MS-MPPD",
            "Error",
            *(["Error with gates"] if gates else []),
            "MS-MPPD, random",
            "TASAD",
            "STD",
        ),
        rows,
        f"Radius {shared(radius)}; {images_of(found)} images, ± half the 95 % interval. True and "
        "MS-MPPD: mean squares over neurons and steps, in v_th². "
        "Error: that of the simplified recursion, as a share of the true perturbation. Random: "
        "same L2 norm as the attack.",
    )


def _places(m: Measurement) -> list[str]:
    """Return the places of the layers as text: a categorical axis has no fractions."""
    return [str(place + 1) for place in range(len(m.axes["layer"]))]


def _number(values: NDArray[Any], half: NDArray[Any], at: tuple[int, ...]) -> str:
    return half_text(values[at], half[at])


def _share(values: NDArray[Any], half: NDArray[Any], at: tuple[int, ...]) -> str:
    return f"{100 * values[at]:.1f} ± {100 * half[at]:.1f} %"


def _line(
    x: ArrayLike, y: NDArray[Any], half: NDArray[Any], name: str, network: str, dash: Any
) -> Series:
    low, high = y - half, y + half
    return Series(x, y, name, network, low=low, high=high, dash=dash, legend=dash != "dot")


def _top(marks: list[Series], least: float) -> float:
    """Return the upper end of an axis from 0 that shows all marks and their intervals."""
    ends = [np.asarray(m.y if m.high is None else m.high, dtype=np.float64) for m in marks]
    known = np.concatenate(ends)
    known = known[np.isfinite(known)]
    return max(least, 1.05 * float(known.max(initial=0.0))) or 1.0
