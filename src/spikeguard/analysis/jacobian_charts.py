"""What the analysis ``jacobian`` shows: result in one line, table and charts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from spikeguard.analysis.intervals import mean_interval, median_interval
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Series, Table
from spikeguard.analysis.texts import images_of, interval_text, labelled, number_text

__all__ = ["charts_of", "norms_in_words", "table_of"]


def norms_in_words(found: Mapping[str, Measurement]) -> str:
    """Return the mean spectral norm of every network."""
    texts = {label: number_text(mean_interval(m["norm"])[0]) for label, m in found.items()}
    return "Mean spectral norm of the Jacobian: " + labelled(texts)


def table_of(found: Mapping[str, Measurement]) -> Table:
    """Return a row for every network."""
    rows = []
    for label, m in found.items():
        above = int((m["r_adv"] > m["bound"]).sum())
        further = int((m["r_adv"] > m["bound_of_norm"]).sum())
        counts = f"{above}; {further}" if _bounded(m) else "–"
        rows.append(
            (
                label,
                interval_text(*mean_interval(m["norm"])),
                interval_text(*median_interval(m["norm"])),
                str(int((~m["converged"]).sum())),
                interval_text(*mean_interval(m["r_adv"])),
                interval_text(*mean_interval(m["bound"])),
                counts,
                interval_text(*mean_interval(m["loss_rise"])),
                interval_text(*median_interval(m["ratio_gradient"])),
                interval_text(*median_interval(m["ratio_bound"])),
                interval_text(*median_interval(m["ratio"])),
                str(int(np.isnan(m["ratio"]).sum())),
            )
        )
    caption = (
        f"The first {images_of(found)} clean test images, own surrogate, one draw of the noise an "
        "image, the same in every pass. Means and medians with 95 % intervals over images. Not "
        "converged: power iterations. Above: images whose R_adv exceeds eps² |J|²; and that bound "
        "for the norm of the threat set, times the number of pixels for Linf; a threat set on "
        "events has no such bound. Theorem 1 (Linf): "
        "ratio of adversarial to random change of the true class's logit by the gradient, its "
        "bound, and as measured in the threat set; unmoved images have no measured ratio."
    )
    head = (
        "Network", "|J|", "median |J|", "not converged", "R_adv", "eps² |J|²", "above",
        "loss rise", "ratio by gradient", "its bound", "ratio measured", "unmoved",
    )  # fmt: skip
    return Table(head, rows, caption)


def charts_of(found: Mapping[str, Measurement]) -> list[Plot]:
    """Return the distribution of the norms, R_adv against its bound, and Theorem 1's ratio."""
    norms, points, ratios = [], [], []
    for label, m in found.items():
        share = 100 * (np.arange(m.samples) + 1) / m.samples
        norms.append(Series(np.sort(m["norm"]), share, label, label, kind="cumulative"))
        if _bounded(m):
            bound, reached = (_positive(m[key]) for key in ("bound", "r_adv"))
            points.append(Series(bound, reached, label, label, kind="points"))
        values = [median_interval(m[key]) for key in ("ratio_gradient", "ratio_bound", "ratio")]
        middle, low, high = np.array(values).T
        names = ["by gradient", "bound 3 |g|₀", "measured"]
        ratios.append(Series(names, middle, label, label, low, high, kind="bars"))
    plots = [
        Plot(
            "norms",
            "Spectral norm of the Jacobian",
            norms_in_words(found),
            norms,
            x_title="|J| (logits a pixel unit)",
            y_title="Images at or below (%)",
            y_range=(0, 100),
            width="full",
        ),
    ]
    bounded = {label: m for label, m in found.items() if _bounded(m)}
    if bounded:
        ends = _ends([m["bound"] for m in bounded.values()])
        points.append(Series(ends, ends, "R_adv = bound", dash="dash"))
        reach = _ends([m["r_adv"] for m in bounded.values()])
        over = ", ".join(
            f"{label} {int((m['r_adv'] > m['bound']).sum())} of {m.samples}"
            for label, m in bounded.items()
        )
        plots.append(
            Plot(
                "r-adv",
                "What the attack reaches, and the bound",
                f"Images above the bound eps² |J|²: {over}.",
                points,
                x_title="eps² |J|² (logits squared)",
                y_title="R_adv (logits squared)",
                x_log=True,
                y_log=True,
                y_range=(reach[0] / 2, reach[1] * 2),
            )
        )
    highs = [np.asarray(mark.high) for mark in ratios]
    top = np.nanmax(np.concatenate([[1.0], *highs, *[np.asarray(mark.y) for mark in ratios]]))
    if any(np.isfinite(m["ratio_gradient"]).any() for m in found.values()):
        words = ", ".join(
            f"{label} {median_interval(m['ratio_gradient'])[0]:,.0f}, at most "
            f"{median_interval(m['ratio_bound'])[0]:,.0f}"
            for label, m in found.items()
        )
        plots.append(
            Plot(
                "ratio",
                "Adversarial over random change",
                f"Median ratio by the gradient, and its bound: {words}.",
                ratios,
                y_title="Ratio, median and 95 % interval",
                y_log=True,
                y_range=(1, 2 * top),
            )
        )
    return plots


def _bounded(m: Measurement) -> bool:
    """Whether the threat set has a radius in pixel units, and so a bound."""
    return bool(np.isfinite(m["bound"]).any())


def _positive(values: ArrayLike) -> Tensor:
    """Return values with NaN for those that a logarithmic axis cannot show."""
    rows = torch.as_tensor(values)
    return torch.where(rows > 0, rows, torch.nan)


def _ends(parts: list[ArrayLike]) -> list[float]:
    """Return the smallest and the largest positive number."""
    rows = np.concatenate([np.asarray(part) for part in parts])
    rows = rows[rows > 0]
    return [float(rows.min()), float(rows.max())] if len(rows) else [1.0, 1.0]
