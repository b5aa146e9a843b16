"""Analysis ``zeros``: zeros, entries near zero and norms of the loss gradient, by operation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spikeguard.analysis.base import Passes, Section, count_of, settings_of
from spikeguard.analysis.image_intervals import HOW, share_of
from spikeguard.analysis.intervals import mean_interval
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Series, Table
from spikeguard.analysis.texts import images_of, percent, percent_interval, setting_of, shared, span
from spikeguard.analysis.zero_gradients import (
    NEAR,
    OperationGradient,
    operation_gradients,
    weight_gradients,
)
from spikeguard.data.images import Data, as_image_set
from spikeguard.system.progress import ProgressCallback

__all__ = ["Zeros"]

_ALONE = 4  # gradients of a batch that the gradient of an image passed alone costs
_GROUPS = {"Spiking": ("spiking",), "Pooling": ("pooling",), "Linear, conv": ("linear",)}


@dataclass(frozen=True)
class Zeros:
    """Measure the gradient of the loss by operations and weights, with the network's own surrogate.

    Args:
        limit: Number of images; None for all.
        weights: Number of images for the gradients of the weights, which are passed one at a time.
        near: An entry is near zero up to this fraction of the image's largest entry, in [0, 1).

    Raises:
        ValueError: If ``weights`` or ``near`` is out of range.

    Source: Figs. 1 and 3 and Theorem 2 of the gradient-sparsity-trail paper (arXiv:2509.23762).
    The paper counts exact zeros.
    """

    limit: int | None = 128
    weights: int = 32
    near: float = NEAR

    name: ClassVar[str] = "zeros"
    title: ClassVar[str] = "Zeros in the gradient, operation by operation"
    section: ClassVar[Section] = "gradients"
    source: ClassVar[str] = "gradient-sparsity-trail paper, Figs. 1 and 3, Theorem 2"
    about: ClassVar[str] = (
        "Share of the entries of the loss gradient that are exactly 0, and near 0, at the input of "
        "every operation and for every weight. An attack gets no direction from a gradient of 0."
    )

    def __post_init__(self) -> None:
        if self.weights < 1:
            raise ValueError(f"zeros: weights is a number of images >= 1, got {self.weights}.")
        if not 0 <= self.near < 1:
            raise ValueError(f"zeros: near is a fraction in [0, 1), got {self.near:g}.")

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return shares and norms along the axes "operation", the image first, and "weight"."""
        n = count_of(as_image_set(data), self.limit)
        few = min(n, self.weights)
        operations = operation_gradients(
            model, data, limit=n, batch_size=batch_size, seed=seed, near=self.near
        )
        if progress is not None:
            progress(1, 2, "weights")
        weights = weight_gradients(model, data, limit=few, seed=seed, near=self.near)
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            n,
            {
                "operation": list(operations),
                "weight": np.array(list(weights), dtype=np.str_),
                "end": ["low", "high"],
            },
            kind=([s.kind for s in operations.values()], ["operation"], "", "class of operation"),
            role=([s.role for s in operations.values()], ["operation"], "", "role of operation"),
            weight_images=(few, [], "images", "images behind the gradients of the weights"),
            weight_entries=(
                [each.entries // each.images for each in weights.values()],
                ["weight"],
                "entries",
                "entries of the weight",
            ),
            **_quantities(operations, "operation", "", seed),
            **_quantities(weights, "weight", "weight_", seed),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return one gradient an image, and those of single images for the weights."""
        return Passes(gradients=samples + _ALONE * min(samples, self.weights))

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the share of pixels without a gradient."""
        shares = {label: m.number("zeros", operation="input") for label, m in found.items()}
        return f"Pixels with a gradient of exactly 0: {span(shares, percent)}"

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every network: its pixels, its operations by role, its weights."""
        rows = [
            (
                label,
                _cell(m, "zeros"),
                _cell(m, "near"),
                _cell(m, "norm"),
                *(_span(m["zeros"][np.isin(m["role"], roles)]) for roles in _GROUPS.values()),
                _span(m["weight_zeros"]),
                _span(m["weight_near"]),
            )
            for label, m in found.items()
        ]
        few = shared({label: str(int(m["weight_images"])) for label, m in found.items()})
        caption = (
            f"The first {images_of(found)} clean test images (weights: {few}), own surrogate, "
            f"evaluation mode; shares with {HOW}. Zeros at the "
            "input of operations by role and of weights: smallest to largest mean. Near 0: at most "
            f"{setting_of(found, 'near')} of the image's largest entry. Every operation and weight "
            "is in the CSV file."
        )
        head = ("Network", "Pixels: 0", "Pixels near 0", "Norm", *(f"{g}: 0" for g in _GROUPS))
        return Table((*head, "Weights: 0", "Weights near 0"), rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return four charts with a line for each network: zeros, near zeros, norms, weights."""
        depth = "Depth: 0 is the image, 1 the readout"
        weights = "Depth: 0 is the first weight, 1 the last"
        near, n = setting_of(found, "near"), images_of(found)
        plots = [
            _chart(found, "zeros", "Exact zeros by depth", depth, Zeros.result(found)),
            _chart(found, "near", "Zeros and near zeros by depth", depth,
                   f"Entries of at most {near} of the image's largest entry, {n} images: "
                   + _ends(found, "near", 100, " %")),
            _chart(found, "norm", "Norm of the gradient by depth", depth,
                   "Mean norm at the pixels: " + _ends(found, "norm", 1, "")),
        ]  # fmt: skip
        if all(len(m["weight_zeros"]) for m in found.values()):
            few = shared({label: str(int(m["weight_images"])) for label, m in found.items()})
            words = f"Exact zeros among the entries of all weights, {few} images: " + ", ".join(
                f"{label} {percent(_of_all_entries(m))}" for label, m in found.items()
            )
            title = "Exact zeros of the weights' gradients by depth"
            plots.append(_chart(found, "weight_zeros", title, weights, words))
        return plots


def _quantities(
    seen: Mapping[str, OperationGradient], axis: str, prefix: str, seed: int
) -> dict[str, tuple[Any, Any, str, str]]:
    """Return means over images and the ends of their 95 % intervals."""
    images = [torch.cat(each.by_image).numpy() for each in seen.values()]
    rows = np.stack(images, 1) if images else np.zeros((1, 0, 3))  # [images, operations, 3]
    found = {}
    for place, (name, unit, about) in enumerate(
        (
            ("zeros", "share", "entries equal to 0"),
            ("near", "share", "entries of at most `near` of the image's largest entry"),
            ("norm", "1", "mean L2 norm of an image's gradient"),
        )
    ):
        if name == "norm":
            each = [mean_interval(rows[:, k, place]) for k in range(rows.shape[1])]
            middle, low, high = np.array(each).reshape(-1, 3).T
        else:
            middle, low, high = share_of(rows[..., place], np.ones((len(rows), 1)), seed=seed)
        ends = np.stack([low, high], 1)
        found[prefix + name] = (middle, [axis], unit, about)
        found[f"{prefix}{name}_interval"] = (ends, [axis, "end"], unit, f"95 % interval: {about}")
    return found


def _cell(m: Measurement, name: str) -> str:
    """Return a number at the pixels with its interval."""
    mean, (low, high) = m[name][0], m[f"{name}_interval"][0]
    if name == "norm":
        return f"{mean:.3g} [{low:.2g}, {high:.2g}]"
    return percent_interval(mean, low, high)


def _of_all_entries(m: Measurement) -> float:
    """Return the share of zeros among the entries of all weights; NaN where they are unknown."""
    if "weight_entries" not in m.quantities:  # a measurement of an earlier version
        return math.nan
    return float(np.average(m["weight_zeros"], weights=m["weight_entries"]))


def _span(shares: NDArray[np.float64]) -> str:
    """Return the smallest and the largest share."""
    return f"{100 * shares.min():.0f} to {100 * shares.max():.0f} %" if len(shares) else "–"


def _ends(found: Mapping[str, Measurement], name: str, scale: float, unit: str) -> str:
    return ", ".join(f"{label} {scale * m[name][0]:.3g}{unit}" for label, m in found.items())


def _chart(found: Mapping[str, Measurement], name: str, title: str, x: str, words: str) -> Plot:
    norm = name == "norm"
    marks = []
    for label, m in found.items():
        values = m[name] if norm else 100 * m[name]
        marks.append(Series(np.linspace(0, 1, len(values)), values, label, label))
    return Plot(
        name.replace("_", "-"),
        title,
        words,
        marks,
        x_title=x,
        y_title="Mean L2 norm" if norm else "Share of the entries (%)",
        y_log=norm,
        y_range=None if norm else (0, 100),
    )
