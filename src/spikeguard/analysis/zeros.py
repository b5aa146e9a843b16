"""Analysis ``zeros``: exact zeros and norms of the gradient at the input of every operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from spikeguard.analysis.base import Passes, Section, count_of, settings_of
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Series, Table
from spikeguard.analysis.zero_gradients import operation_gradients
from spikeguard.data.images import Data, as_image_set
from spikeguard.system.progress import ProgressCallback

__all__ = ["Zeros"]


@dataclass(frozen=True)
class Zeros:
    """Measure the gradient of the loss at the input of every operation, with the own surrogate.

    Args:
        limit: Number of images; None for all.

    Source: Figs. 1 and 3 of the gradient-sparsity-trail paper (arXiv:2509.23762).
    """

    limit: int | None = 128

    name: ClassVar[str] = "zeros"
    title: ClassVar[str] = "Zeros in the gradient, operation by operation"
    section: ClassVar[Section] = "gradients"
    source: ClassVar[str] = "gradient-sparsity-trail paper, Figs. 1 and 3"
    about: ClassVar[str] = (
        "Share of the entries of the loss gradient that are exactly 0 at the input of every "
        "operation, from the image to the readout. No attack gets a direction from a gradient of 0."
    )

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return share of zeros and mean norm along the axis "operation"; the image comes first."""
        found = operation_gradients(model, data, limit=self.limit, batch_size=batch_size, seed=seed)
        rows = list(found.values())
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            count_of(as_image_set(data), self.limit),
            {"operation": list(found)},
            kind=([row.kind for row in rows], ["operation"], "", "class of the operation"),
            zeros=([row.zero_share for row in rows], ["operation"], "share", "entries equal to 0"),
            norm=([row.norm for row in rows], ["operation"], "1", "mean L2 norm of an image"),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return one gradient an image."""
        return Passes(gradients=samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the share of pixels without a gradient."""
        shares = {label: m.number("zeros", operation="input") for label, m in found.items()}
        low, high = (end(shares, key=shares.__getitem__) for end in (min, max))
        if len(shares) == 1:
            return f"{100 * shares[low]:.1f} % of the pixels have a gradient of exactly 0"
        return (
            f"Pixels with a gradient of exactly 0: {100 * shares[low]:.1f} % ({low}) to "
            f"{100 * shares[high]:.1f} % ({high})"
        )

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every operation of every network."""
        rows = [
            (label, name, kind, f"{100 * share:.1f} %", f"{norm:.3g}")
            for label, m in found.items()
            for name, kind, share, norm in zip(
                m.axes["operation"], m["kind"], m["zeros"], m["norm"], strict=True
            )
        ]
        n = next(iter(found.values())).samples
        caption = f"The first {n} test images, network's own surrogate, evaluation mode."
        return Table(("Network", "Operation", "Kind", "Zeros", "Mean norm"), rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return one chart: share of zeros by depth, a line for each network."""
        marks = []
        for label, m in found.items():
            depth = np.linspace(0, 1, len(m["zeros"]))
            marks.append(Series(depth, 100 * m["zeros"], label, label, kind="line"))
        return [
            Plot(
                "by-depth",
                "Zeros by depth",
                Zeros.result(found),
                marks,
                x_title="Depth: 0 is the image, 1 the readout",
                y_title="Zeros in the gradient (%)",
                y_range=(0, 100),
                width="full",
            )
        ]
