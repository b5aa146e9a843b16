"""Charts of the analysis ``noise``: flips by distance and by step, shares within sigma by layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from spikeguard.analysis.layer_lines import layer_plot, stepped
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Series
from spikeguard.analysis.theory import flip_probability

__all__ = ["noise_plots"]


def noise_plots(found: Mapping[str, Measurement], result: str) -> list[Plot]:
    """Return flips by distance, shares within sigma by layer, and flips by step where known."""
    z = torch.linspace(0, 4, 81)
    curve = Series(z.numpy(), 100 * flip_probability(z, 1.0).numpy(), "Theorem 1", dash="dash")
    by_distance, by_step, top = [curve], [], 0.0
    for label, m in found.items():
        y, low, high = (100 * m[f"band_rate{end}"] for end in ("", "_low", "_high"))
        distance = m["band_distance"]
        by_distance.append(Series(distance, y, label, label, low, high, kind="points"))
        for name, dash in (("measured", "solid"), ("predicted", "dot")):
            y = 100 * m[f"{name}_by_step"][1]
            if np.isfinite(y).all():
                by_step.append(Series(m.axes["step"], y, f"{label}, {name}", label, dash=dash))  # type: ignore[arg-type]
                top = max(top, float(y.max()))
    plots = [
        Plot(
            "distance",
            "Flips by the noise of their step",
            f"Points: measured; dashed line: predicted. {result}.",
            by_distance,
            x_title="Distance to the threshold, |v - v_th| / sigma",
            y_title="Spikes that flip (%)",
            x_range=(0, 4),
            y_range=(0, 55),
            height=300,
        ),
        layer_plot(
            found,
            lambda m: {"": stepped(m, "within_sigma")},
            name="layers",
            title="Potentials with |v - v_th| < sigma, by layer",
            summary=f"Elsewhere noise makes a spike more sensitive. {result}.",
            y_title="Within sigma (%)",
        ),
    ]
    if not by_step:
        return plots
    by_steps = Plot(
        "step",
        "Flips by the noise of all steps so far",
        "The prediction is of the potentials without any noise. It is exact at step 1; "
        "later the noise of earlier steps is in the membrane too.",
        by_step,
        x_title="Step",
        y_title="Spikes that flip (%)",
        y_range=(0, 1.08 * top or 1),
        height=300,
    )
    return [*plots, by_steps]
