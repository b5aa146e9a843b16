"""Result, table and charts of both landscapes; all networks share one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spikeguard.analysis.landscape_numbers import PLACES, interval
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Heat, Plot, Series, Surface, Table
from spikeguard.analysis.texts import images_of, span, whole_percent
from spikeguard.system.intervals import wilson

__all__ = ["CONTOURS", "beaten", "plots", "result", "table", "weight_result"]

Found = Mapping[str, Measurement]
_MORE = 1e-3  # nats by which a point of the grid must exceed the loss of the attack
CONTOURS = (("loss", 0), ("loss", 1), ("accuracy", 0))
_SURFACES = 6  # networks; browsers draw about sixteen 3-D charts on one page


def beaten(m: Measurement) -> tuple[float, tuple[float, float]]:
    """Return the share of images for which the grid has a larger loss than the attack found.

    Only points of the plane around the clean image that lie in the threat set count, and only if
    they exceed the loss at the attacked image by 0.001 nats.

    Returns:
        The share and its Wilson 95 % interval.
    """
    over = m["highest"] > m["centre"][PLACES.index("attacked")] + _MORE
    return float(over.mean()), wilson(int(over.sum()), len(over))


def result(found: Found) -> str:
    """Return the roughness and the number of peaks around attacked images."""
    rough = {label: interval(m["roughness"][1, 0])[0] for label, m in found.items()}
    many = {label: interval(m["peaks"][1])[0] for label, m in found.items()}
    return (
        f"Around attacked images the loss has a roughness of {span(rough, '{:.2f}'.format)} along "
        f"the gradient and {span(many, '{:.1f}'.format)} peaks in the plane"
    )


def weight_result(found: Found) -> str:
    """Return the accuracy over the grid on attacked images."""
    kept = {label: float(m["held"][1].mean()) for label, m in found.items()}
    clean = {label: float(m["held"][0].mean()) for label, m in found.items()}
    return (
        f"Mean accuracy over the grid of weights: {span(clean, whole_percent)} on clean images, "
        f"{span(kept, whole_percent)} on attacked ones"
    )


def table(found: Found) -> Table:
    """Return two rows a network, clean and attacked, with 95 % intervals over images."""
    first = next(iter(found.values()))
    inputs = "highest" in first.quantities
    head = ["Network", "Images", "Surrogate", "Loss at the centre"]
    head += ["Largest loss in the ball", "Above the attack's"] if inputs else []
    head += ["Right on the grid", "Rough: gradient", "Rough: random", "Peaks"]
    rows = []
    for label, m in found.items():
        for at, place in enumerate(PLACES):
            row = [label, place, surrogate(m.settings), _mean(m["centre"][at])]
            if inputs:
                row += _worst(m) if place == "clean" else ["", ""]
            row += [_mean(100 * m["held"][at], " %")]
            row += [_mean(m["roughness"][at, side]) for side in (0, 1)]
            rows.append((*row, _mean(m["peaks"][at])))
    caption = (
        f"Means over the first {images_of(found)} test images with 95 % intervals. Roughness: "
        "variation of the loss along the line through the centre over its range, less 1; 0 is "
        "monotone, 1 a valley; images with a constant loss are left out. Peaks: points above all "
        "eight neighbours."
    )
    return Table(tuple(head), rows, caption)


def _worst(m: Measurement) -> list[str]:
    share, (low, high) = beaten(m)
    return [_mean(m["highest"]), f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"]


def surrogate(settings: Mapping[str, Any]) -> str:
    """Return the name of the gradient or surrogate of the first direction; "own" for Backprop."""
    part = settings["gradient"]
    inner = part.get("surrogate", part)
    if isinstance(inner, int | float):
        return f"own, widened {inner:g} times"
    return "own" if inner["kind"] == "Backprop" else str(inner["kind"])


def _mean(values: Any, unit: str = "") -> str:
    middle, half, n = interval(values)
    few = f" (n = {n})" if n < len(values) else ""
    return f"{middle:.3g} ± {half:.2g}{unit}{few}"


def plots(found: Found, contours: Sequence[tuple[str, int]] = CONTOURS) -> list[Plot]:
    """Return lines through the centre, contours of all networks, and surfaces under attack.

    Args:
        found: Measurements by network.
        contours: Quantities, each with the number of its place in ``PLACES``.
    """
    words = _unit(found)
    charts = [_lines(found, name, at, words) for name in ("loss", "accuracy") for at in (0, 1)]
    for name, at in contours:
        scale = _limits(found, name)
        charts += [
            _contour(number, label, m, name, at, words, scale)
            for number, (label, m) in enumerate(found.items())
        ]
    scale = _limits(found, "loss")
    if len(found) <= _SURFACES:
        charts += [
            _surface(number, label, m, words, scale)
            for number, (label, m) in enumerate(found.items())
        ]
    return charts


def _unit(found: Found) -> str:
    inputs = "highest" in next(iter(found.values())).quantities
    return "eps" if inputs else "relative"


def _limits(found: Found, name: str) -> tuple[float, float]:
    """Return the ends of the scale of all networks and both places."""
    if name == "accuracy":
        return 0.0, 100.0
    return 0.0, max(float(m["loss"].max()) for m in found.values())


def _shown(m: Measurement, name: str, at: int) -> Any:
    return m[name][at] * (100 if name == "accuracy" else 1)


def _title(name: str, at: int) -> str:
    return f"{'Mean loss' if name == 'loss' else 'Accuracy'}, {PLACES[at]} images"


def _axis_of(name: str) -> str:
    return "Mean cross-entropy (nats)" if name == "loss" else "Accuracy (%)"


def _lines(found: Found, name: str, at: int, words: str) -> Plot:
    marks = []
    for label, m in found.items():
        axis, grid = m.axes["along"], _shown(m, name, at)
        middle = len(axis) // 2
        marks.append(Series(axis, grid[:, middle], label, label))
        marks.append(Series(axis, grid[middle], "", label, dash="dot"))
    ends = {label: _shown(m, name, at) for label, m in found.items()}
    said = "; ".join(
        f"{label}: {grid[0, len(grid) // 2]:.3g} to {grid[-1, len(grid) // 2]:.3g}, "
        f"{grid[len(grid) // 2, len(grid) // 2]:.3g} at the centre"
        for label, grid in ends.items()
    )
    return Plot(
        f"{name}-line-{PLACES[at]}",
        f"{_title(name, at)}: along the gradient (solid), a random direction (dotted)",
        f"{_axis_of(name)} along the gradient, from the lowest to the highest coordinate: {said}",
        marks,
        x_title=f"Distance from the centre ({words})",
        y_title=_axis_of(name),
        y_range=_limits(found, name) if name == "accuracy" else (0, 1.04 * _line_top(found)),
        height=300,
    )


def _line_top(found: Found) -> float:
    middle = {label: len(m.axes["along"]) // 2 for label, m in found.items()}
    return max(
        max(float(m["loss"][:, :, middle[label]].max()), float(m["loss"][:, middle[label]].max()))
        for label, m in found.items()
    )


def _contour(
    number: int,
    label: str,
    m: Measurement,
    name: str,
    at: int,
    words: str,
    scale: tuple[float, float],
) -> Plot:
    grid = _shown(m, name, at)
    heat = Heat(
        grid.T,
        m.axes["along"],
        m.axes["across"],
        "nats" if name == "loss" else "%",
        low=scale[0],
        high=scale[1],
        levels=8,
    )
    return Plot(
        f"{name}-{PLACES[at]}-{number}",
        f"{name.capitalize()}, {PLACES[at]}",
        f"{label}, {_title(name, at)}: {grid.min():.3g} to {grid.max():.3g} on the grid, "
        f"{grid[len(grid) // 2, len(grid) // 2]:.3g} at the centre; one scale for all networks",
        [heat],
        x_title=f"Gradient ({words})",
        y_title=f"Random ({words})",
        network=label,
        width="small",
        height=230,
    )


def _surface(
    number: int, label: str, m: Measurement, words: str, scale: tuple[float, float]
) -> Plot:
    grid = m["loss"][1]
    return Plot(
        f"surface-{number}",
        "Loss surface, attacked",
        f"{label}: mean loss of attacked images as a surface, {grid.min():.3g} to "
        f"{grid.max():.3g} nats; the contours below show the same numbers",
        [Surface(grid.T, m.axes["along"], m.axes["across"], "nats", *scale)],
        x_title=f"Gradient ({words})",
        y_title=f"Random ({words})",
        network=label,
        height=380,
    )
