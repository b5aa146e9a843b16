"""Analysis ``activity``: firing rates, silent and saturated neurons, spikes of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from spikeguard.analysis.attacked import recorded
from spikeguard.analysis.base import NotApplicable, Passes, Section, batches, count_of, settings_of
from spikeguard.analysis.intervals import mean_interval
from spikeguard.analysis.layer_lines import layers_of
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Series, Table
from spikeguard.analysis.texts import images_of, percent, span
from spikeguard.data.images import Data, as_image_set
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.models.spike_counts import LayerSpikes, count_spikes, joined_spikes
from spikeguard.system.progress import ProgressCallback

__all__ = ["OF", "Activity", "mean_of", "settled"]

OF = ("mean", "low", "high")  # axis of a mean over images with its 95 % interval


@dataclass(frozen=True)
class Activity:
    """Count the spikes of every layer, step, image and neuron on clean images.

    Args:
        limit: Number of images; None for all.

    Source: Operational-space paper, Table II, for numbers of spikes.
    """

    limit: int | None = 128

    name: ClassVar[str] = "activity"
    title: ClassVar[str] = "Firing rates, silent and saturated neurons"
    section: ClassVar[Section] = "activity"
    source: ClassVar[str] = "operational-space paper, Table II (numbers of spikes)"
    about: ClassVar[str] = (
        "Spikes by neuron and step. A silent neuron fires on none of the images, a saturated one "
        "in every step of all images: neither can tell two images apart."
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
        """Return rates along "layer" and "step", shares of neurons along "layer", and totals."""
        n = count_of(as_image_set(data), self.limit)
        passes: list[dict[str, LayerSpikes]] = []
        with count_spikes(model, each_neuron=True) as counts:
            for batch in batches(
                model,
                data,
                limit=self.limit,
                batch_size=batch_size,
                progress=progress,
                what="activity",
            ):
                with recorded(model, batch, seed):
                    settled(model, in_dtype_of(model, batch.x))
                    model(in_dtype_of(model, batch.x))
                passes.append(dict(counts))
        layers = joined_spikes(passes)
        steps = {len(layer.spikes) for layer in layers.values()}
        if len(steps) != 1:
            why = f"its layers take {sorted(steps)} steps" if steps else "it has no spiking layer"
            raise NotApplicable(f"activity needs spiking layers of one number of steps; {why}.")
        T = steps.pop()
        neurons = np.array([layer.neurons for layer in layers.values()])
        spikes = np.stack([layer.spikes.cpu().numpy() for layer in layers.values()])  # [L, T, n]
        each = [layer.each.cpu().numpy() for layer in layers.values() if layer.each is not None]
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            n,
            {
                "layer": list(layers),
                "step": np.arange(1, T + 1),
                "image": np.arange(n),
                "of": list(OF),
            },
            neurons=(neurons, ["layer"], "neurons", "number of neurons"),
            rate=(
                spikes.sum(2) / (neurons[:, None] * n),
                ["layer", "step"],
                "share",
                "spikes by neuron and image",
            ),
            spikes=(spikes.mean(2), ["layer", "step"], "spikes an image", "mean over the images"),
            silent=(
                [(layer == 0).mean() for layer in each],
                ["layer"],
                "share",
                "neurons that fire on none of the images",
            ),
            saturated=(
                [(layer == T * n).mean() for layer in each],
                ["layer"],
                "share",
                "neurons that fire in every step of all images",
            ),
            image_spikes=(spikes.sum((0, 1)), ["image"], "spikes", "spikes of all layers"),
            total=(
                mean_interval(spikes.sum((0, 1))),
                ["of"],
                "spikes an image",
                "spikes of all layers, mean over the images with its 95 % interval",
            ),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return one forward pass an image."""
        return Passes(forward=samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the spikes of an image."""
        totals = {label: m.number("total", of="mean") for label, m in found.items()}
        return "Spikes of an image: " + span(totals, lambda number: f"{number:,.0f}")

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every layer of every network, and one for all its layers."""
        rows = []
        for label, m in found.items():
            neurons = m["neurons"]
            parts = zip(
                m.axes["layer"],
                neurons,
                m["rate"].mean(1),
                m["silent"],
                m["saturated"],
                m["spikes"].sum(1),
                strict=True,
            )
            rows += [
                (label, str(name), f"{size:,}", *map(percent, shares), f"{spikes:,.0f}")
                for name, size, *shares, spikes in parts
            ]
            shares = [
                float((m[key] * neurons).sum() / neurons.sum()) for key in ("silent", "saturated")
            ]
            rate = float((m["rate"].mean(1) * neurons).sum() / neurons.sum())
            cells = (f"{neurons.sum():,}", *map(percent, (rate, *shares)), mean_of(m, "total"))
            rows.append((label, "all", *cells))
        caption = (
            f"The first {images_of(found)} test images, clean. Rate: spikes by neuron, step and "
            "image. Spikes of all layers with the 95 % interval over images."
        )
        head = ("Network", "Layer", "Neurons", "Rate", "Silent", "Saturated", "Spikes an image")
        return Table(head, rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return rates by layer and by step, and the shares of silent and saturated neurons."""
        by_layer, by_step, useless = [], [], []
        for label, m in found.items():
            depth = layers_of(found, label)
            weights = m["neurons"] / m["neurons"].sum()
            by_layer.append(Series(depth, 100 * m["rate"].mean(1), label, label))
            steps = 100 * (m["rate"] * weights[:, None]).sum(0)
            by_step.append(Series(m.axes["step"], steps, label, label))
            useless.append(Series(depth, 100 * m["silent"], f"{label}, silent", label))
            if m["saturated"].any():
                useless.append(
                    Series(depth, 100 * m["saturated"], f"{label}, saturated", label, dash="dash")
                )
        rates = {label: _overall(m) for label, m in found.items()}
        ends = {label: float(m["silent"].max()) for label, m in found.items()}
        most = max(float(np.max(line.y)) for line in (*by_layer, *by_step))
        layer, rate = "Spiking layer", "Firing rate (%)"
        return [
            Plot(
                "by-layer",
                "Firing rate by layer",
                f"Firing rate of all neurons: {span(rates, percent)}",
                by_layer,
                x_title=layer,
                y_title=rate,
                y_range=(0, 1.05 * most + 1),
            ),
            Plot(
                "by-step",
                "Firing rate by step",
                f"Firing rate of all neurons: {span(rates, percent)}",
                by_step,
                x_title="Time step",
                y_title=rate,
                y_range=(0, 1.05 * most + 1),
            ),
            Plot(
                "silent",
                "Silent and saturated neurons",
                f"Silent neurons in the layer with most of them: {span(ends, percent)}",
                useless,
                x_title=layer,
                y_title="Neurons of the layer (%)",
                width="full",
            ),
        ]


def settled(model: nn.Module, x: object) -> None:
    """Call a foreign network once, so that it detects how images are presented to it."""
    if not getattr(model, "settled", True):
        model(x[:1])  # type: ignore[index]


def mean_of(m: Measurement, quantity: str) -> str:
    """Write a mean over images with its 95 % interval: "1,234 [1,100, 1,368]"."""
    middle, low, high = (m.number(quantity, of=end) for end in OF)
    return f"{middle:,.0f}" + ("" if np.isnan(low) else f" [{low:,.0f}, {high:,.0f}]")


def _overall(m: Measurement) -> float:
    """Return the firing rate of all neurons."""
    return float((m["rate"].mean(1) * m["neurons"]).sum() / m["neurons"].sum())
