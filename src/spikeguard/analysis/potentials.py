"""Analysis ``potentials``: potentials around the threshold, on clean and on attacked images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeguard.analysis.attacked import attacked, traces
from spikeguard.analysis.base import Passes, Section, batches, settings_of
from spikeguard.analysis.image_intervals import HOW, Share, change_of_share, share_quantities
from spikeguard.analysis.layer_lines import ALL, require_margin
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.membrane import (
    NEAR,
    LayerCounts,
    count_potentials,
    default_edges,
    is_near,
    relative_distance,
)
from spikeguard.analysis.plots import Plot, Table
from spikeguard.analysis.potential_charts import potential_plots
from spikeguard.analysis.texts import listed, percent, setting_of, share_text, signed
from spikeguard.attacks.base import Attack, cost
from spikeguard.data.images import Data
from spikeguard.neurons.trace import LayerTrace
from spikeguard.system.progress import ProgressCallback

__all__ = ["INPUTS", "Potentials"]

INPUTS = ("clean", "attacked")
"""Labels of the axis "input"."""

_Counts = dict[str, list[LayerCounts]]  # by layer, one for each step


@dataclass(frozen=True)
class Potentials:
    """Count the potentials of every layer and step by their distance to the threshold.

    Args:
        attack: The attack; it states its threat set.
        margin: A potential is near the threshold if |v / v_th - 1| is below it, > 0.
        limit: Number of images; None for all.

    Raises:
        ValueError: If the margin is not positive.

    Source: TGO (arXiv:2602.20548) Fig. 4.
    """

    attack: Attack
    margin: float = NEAR
    limit: int | None = 256

    name: ClassVar[str] = "potentials"
    title: ClassVar[str] = "Potentials at the threshold, clean and attacked"
    section: ClassVar[Section] = "membranes"
    source: ClassVar[str] = "TGO, Fig. 4"
    about: ClassVar[str] = (
        "Potentials before reset, noise included, by their distance to the threshold in units of "
        "v_th: a neuron fires at 0 or above, and -1 is a potential of 0. A narrow surrogate passes "
        "a gradient only near 0. Changes are relative to the first network."
    )

    def __post_init__(self) -> None:
        require_margin("potentials", self.margin)

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return counts by input, layer, step and bin, and shares near the threshold.

        Raises:
            NotApplicable: If the network has no spiking layer.
            ValueError: If a potential is NaN, or the limit is below 1.
        """
        counts: tuple[_Counts, _Counts] = ({}, {})
        near: tuple[list[NDArray[np.int64]], ...] = ([], [])  # of every batch, [B, layers]
        run = batches(model, data, limit=self.limit, batch_size=batch_size, progress=progress)
        for batch in run:
            for i, x in enumerate((batch.x, attacked(model, batch, self.attack, seed))):
                inside = []
                for layer, seen in traces(model, batch, x, seed)[1].items():
                    distance = relative_distance(layer, seen)
                    steps = self._counted(seen, distance)
                    before = counts[i].get(layer)
                    counts[i][layer] = steps if before is None else _added(before, steps)
                    inside.append(is_near(distance, self.margin).transpose(0, 1).flatten(1).sum(1))
                near[i].append(np.stack([each.cpu().numpy() for each in inside], 1))
        return self._measurement(counts, np.stack([np.concatenate(each) for each in near]), seed)

    def _counted(self, seen: LayerTrace, distance: Tensor) -> list[LayerCounts]:
        """Return the counts of every step of a layer."""
        steps = (slice(t, t + 1) for t in range(len(distance)))
        return [
            count_potentials(
                replace(seen, v=seen.v[t], spikes=seen.spikes[t]),
                distance[t],
                default_edges(),
                self.margin,
            )
            for t in steps
        ]

    def _measurement(
        self, counts: tuple[_Counts, _Counts], near: NDArray[np.int64], seed: int
    ) -> Measurement:
        """Return the measurement from counts by input, and from ``near`` [input, image, layer]."""
        samples, layers = near.shape[1], list(counts[0])
        rows = [[each[layer] for layer in layers] for each in counts]
        size = np.array([sum(step.potentials for step in steps) // samples for steps in rows[0]])
        size, near = np.append(size, size.sum()), np.append(near, near.sum(2, keepdims=True), 2)

        def each(name: str) -> NDArray[np.int64]:
            return np.array([[[getattr(s, name) for s in steps] for steps in row] for row in rows])

        by_step = ["input", "layer", "step"]
        inside = f"|v / v_th - 1| < {self.margin:g}"
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            samples,
            {
                "input": INPUTS,
                "layer": layers,
                "layers": [*layers, ALL],
                "step": np.arange(1, len(rows[0][0]) + 1),
                "bin": default_edges()[:-1],
                "image": np.arange(samples),
            },
            counts=(each("counts"), [*by_step, "bin"], "potentials", "a bin's axis is its start"),
            near_count=(each("near"), by_step, "potentials", inside),
            active=(each("active"), by_step, "potentials", "surrogate > 0"),
            spikes=(each("spikes"), by_step, "spikes", "spikes of all images, before a gate"),
            near_by_image=(near[..., -1], ["input", "image"], "potentials", inside),
            size=(size, ["layers"], "potentials an image", "neurons times steps"),
            **share_quantities(
                "near", near.transpose(1, 0, 2), size, ["input", "layers"], inside, seed
            ),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return the attack, two recorded passes, and counting, as long as 23 passes, an image."""
        return Passes(forward=25 * samples, gradients=samples * cost(self.attack))

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the share near the threshold and its change from the first network."""
        first = next(iter(found.values()))
        texts = {}
        for label, m in found.items():
            clean, under = (percent(m.number("near", input=i, layers=ALL)) for i in INPUTS)
            change = "" if m is first else f", {signed(float(_change(m, first).value))}"
            texts[label] = f"{clean} (attacked {under}{change})"
        margin = setting_of(found, "margin")
        return f"Potentials within {margin} v_th of the threshold: {listed(texts)}"

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every layer, and for all layers, of every network."""
        first = next(iter(found.values()))
        rows = []
        for label, m in found.items():
            for place, part in enumerate(m.axes["layers"].tolist()):
                near = [share_text(m, "near", input=i, layers=part) for i in INPUTS]
                of = slice(None) if part == ALL else slice(place, place + 1)
                whole = m.samples * int(m["size"][place])
                rest = [percent(m[name][0, of].sum() / whole) for name in ("active", "spikes")]
                change = _text(_change(m, first)) if part == ALL and m is not first else "-"
                rows.append((label, part, *near, change, *rest, f"{whole:,}"))
        caption = (
            f"Near: within {setting_of(found, 'margin')} v_th of the threshold. {HOW}. Change of "
            "clean: of the share near the threshold, from the first network. The columns after it "
            "are of the clean images. Threshold crossings are the spikes of a neuron by step, "
            "before the gate where it has a stochastic one."
        )
        head = ("Network", "Layer", "Near, clean", "Near, attacked", "Change of clean")
        return Table((*head, "Surrogate > 0", "Threshold crossings", "Potentials"), rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return a histogram and a map of every network, and the shares by layer."""
        return potential_plots(found, Potentials.result(found))


def _added(a: list[LayerCounts], b: list[LayerCounts]) -> list[LayerCounts]:
    return [one + other for one, other in zip(a, b, strict=True)]


def _change(m: Measurement, first: Measurement) -> Share:
    """Return the change of the clean share near the threshold, over all layers."""
    return change_of_share(
        m["near_by_image"][0],
        m["size"][-1],
        first["near_by_image"][0],
        first["size"][-1],
        seed=int(m.settings["seed"]),
    )


def _text(change: Share) -> str:
    value, low, high = (float(each) for each in change)
    return f"{signed(value)} [{signed(low)}, {signed(high)}]"
