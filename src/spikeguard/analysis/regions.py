"""Analysis ``regions``: linear regions on three lines from each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from spikeguard.analysis.base import (
    Batch,
    NotApplicable,
    Passes,
    Section,
    batches,
    count_of,
    settings_of,
)
from spikeguard.analysis.intervals import mean_interval
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Series, Table
from spikeguard.analysis.region_counts import RegionCount, count_regions, crossings
from spikeguard.analysis.saliency import input_gradient
from spikeguard.analysis.texts import images_of, interval_text, labelled, number_text, setting_of
from spikeguard.attacks.base import Attack
from spikeguard.data.images import Data, ImageSet, as_image_set
from spikeguard.neurons.modes import spiking_layers
from spikeguard.system.progress import ProgressCallback

__all__ = ["Regions"]

LINES = ("gradient", "random", "next image")


@dataclass(frozen=True)
class Regions:
    """Count the linear regions on lines from clean images to the edge of the threat set.

    Args:
        attack: Its threat set states norm and radius; the attack is not applied.
        limit: Number of images; None for all.
        points: Largest number of intervals of a line, >= 128.
        tolerance: The intervals are doubled until the count moves by at most this fraction.

    Raises:
        ValueError: If ``points`` or ``tolerance`` is out of range.

    Source: TGO (arXiv:2602.20548) Theorem 2.
    """

    attack: Attack
    limit: int | None = 8
    points: int = 1024
    tolerance: float = 0.05

    name: ClassVar[str] = "regions"
    title: ClassVar[str] = "Linear regions on a line"
    section: ClassVar[Section] = "gradients"
    source: ClassVar[str] = "TGO, Theorem 2"
    about: ClassVar[str] = (
        "How many different spike patterns a line from an image passes: along the gradient to the "
        "edge of the threat set, in a random direction to its edge, and towards the next image at "
        "most as far as the random line is long. The lengths differ where entries of the gradient "
        "are 0 or ends are clipped to [0, 1], and a longer line passes more patterns. Many "
        "potentials near the threshold are many regions."
    )

    def __post_init__(self) -> None:
        if self.points < 128:
            raise ValueError(f"regions: points must be >= 128, got {self.points}.")
        if not self.tolerance > 0:
            raise ValueError(f"regions: tolerance must be > 0, got {self.tolerance:g}.")

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return the number of regions, and of every layer alone, by line and image."""
        if not spiking_layers(model):
            raise NotApplicable(f"regions needs spiking layers, {type(model).__name__} has none")
        images = as_image_set(data)
        n = count_of(images, self.limit)
        counts: list[list[RegionCount | None]] = []
        lengths = []
        for batch in batches(model, data, limit=n, batch_size=1, progress=progress, what="lines"):
            sample, x = int(batch.index[0]), batch.x[0]
            ends = [end[0] for end in self._ends(model, batch, images, seed)]
            lengths.append([float((end - x).norm()) for end in ends])
            counts.append(
                [
                    count_regions(
                        model, x, end, sample=sample, seed=seed, most=self.points,
                        tolerance=self.tolerance,
                    ) if length > 0 else None
                    for end, length in zip(ends, lengths[-1], strict=True)
                ]
            )  # fmt: skip
        layers = next((list(c.layers) for row in counts for c in row if c is not None), [])
        if not layers:
            raise NotApplicable(
                f"regions: all lines have length 0 at eps {self.attack.threat.eps:g}."
            )
        axes: dict[str, ArrayLike] = {
            "image": np.arange(n),
            "line": LINES,
            "layer": np.array(layers, dtype=np.str_),
        }
        along = ["image", "line"]

        def table(read: Callable[[RegionCount], float]) -> NDArray[np.float64]:
            return np.array([[np.nan if c is None else read(c) for c in row] for row in counts])

        by_layer = np.stack([table(partial(_of_layer, layer)) for layer in layers], -1)
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            n,
            axes,
            regions=(
                table(lambda c: c.regions),
                along,
                "regions",
                "estimated regions; NaN: no line",
            ),
            at_least=(table(lambda c: c.changes + 1), along, "regions", "regions seen on the grid"),
            by_layer=(by_layer, [*along, "layer"], "regions", "regions of one layer's pattern"),
            intervals=(table(lambda c: c.intervals), along, "intervals", "of the last grid"),
            moved=(table(lambda c: c.moved), along, "1", "relative change by the last doubling"),
            converged=(table(lambda c: c.converged), along, "", "1: within the tolerance"),
            length=(np.array(lengths), along, "pixel units", "L2 length of the line"),
        )

    def _ends(self, model: nn.Module, batch: Batch, images: ImageSet, seed: int) -> list[Tensor]:
        """Return the ends of the lines from one image [1, ...], in the order of LINES."""
        threat, x = self.attack.threat, batch.x
        normal = batch.streams(seed, "direction").normal(x.shape, device=x.device).to(x.dtype)
        ends = [
            threat.project(x + threat.eps * threat.steepest(direction), x)
            for direction in (input_gradient(model, batch, seed), normal)
        ]
        other = images.batch([(int(batch.index[0]) + 1) % len(images)])[0].to(x)
        away = other - x
        share = (ends[1] - x).norm() / away.norm().clamp_min(1e-30)
        return [*ends, x + away * share.clamp_max(1)]

    def passes(self, samples: int, T: int) -> Passes:
        """Return the forward passes if every line needs all points; fewer where counts are low."""
        return Passes(forward=samples * len(LINES) * (self.points + 1), gradients=samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the mean number of regions along the gradient."""
        texts = {label: _text(m, "gradient", interval=False) for label, m in found.items()}
        return "Mean number of regions along the gradient: " + labelled(texts)

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every network."""
        rows = []
        for label, m in found.items():
            cells = (_text(m, line) for line in LINES)
            drawn = m["length"] > 0
            open_ = int((m["converged"][drawn] == 0).sum())
            lengths = ", ".join(number_text(_length(m, line)) for line in LINES)
            rows.append((label, *cells, f"{open_} of {int(drawn.sum())}", lengths))
        caption = (
            f"The first {images_of(found)} clean test images, the same noise at every point, mean "
            "with 95 % interval over images, corrected for several boundaries in one interval. "
            "Not converged: lines whose count moved by more than "
            f"{setting_of(found, 'tolerance', 100)} % when the intervals were doubled for the last "
            "time. Images without a gradient have no line along it. Lengths: L2, mean over the "
            "lines of each kind, in the order of the columns; compare numbers of equal length."
        )
        head = ("Network", "Along the gradient", "Random direction", "Towards the next image",
                "Not converged", "Lengths")  # fmt: skip
        return Table(head, rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return the regions of each line, and of each layer's pattern along the gradient."""
        lines, layers = [], []
        for label, m in found.items():
            values = np.array([_known(m, line) for line in LINES])
            middle, low, high = values.T
            lines.append(Series(LINES, middle, label, label, low, high, kind="bars"))
            each = m["by_layer"][:, 0]
            middle = np.array([_finite(each[:, k])[0] for k in range(each.shape[1])])
            layers.append(Series(np.linspace(0, 1, len(middle)), middle, label, label))
        words = Regions.result(found) + "."
        ends = np.concatenate([[mark.y, mark.high] for mark in lines], axis=None).astype(float)
        ends = ends[np.isfinite(ends)]
        shared = (0.0, 1.05 * float(ends.max())) if len(ends) else None
        return [
            Plot(
                "lines",
                "Regions by line",
                words,
                lines,
                y_title="Regions, mean and 95 % interval",
                y_range=shared,
            ),
            Plot(
                "layers",
                "Regions by layer, along the gradient",
                words,
                layers,
                x_title="Depth: 0 is the first spiking layer, 1 the last",
                y_title="Regions, mean",
                y_range=shared,
            ),
        ]


def _of_layer(layer: str, count: RegionCount) -> float:
    return 1 + crossings(count.layers[layer], count.intervals)


def _length(m: Measurement, line: str) -> float:
    """Return the mean length of the lines of one kind; 0 if there is none."""
    lengths = m["length"][:, LINES.index(line)]
    return float(lengths[lengths > 0].mean()) if (lengths > 0).any() else 0.0


def _known(m: Measurement, line: str) -> tuple[float, float, float]:
    return _finite(m["regions"][:, LINES.index(line)])


def _text(m: Measurement, line: str, interval: bool = True) -> str:
    """Return the mean number of regions; what was seen where more points are needed."""
    middle, low, high = _known(m, line)
    if np.isinf(middle):
        return f"> {number_text(np.nanmean(m['at_least'][:, LINES.index(line)]))}"
    return interval_text(middle, low, high) if interval else number_text(middle)


def _finite(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return mean and interval of the values that are known; infinity stays."""
    if np.isinf(values).any():
        return np.inf, np.nan, np.nan
    return mean_interval(values)
