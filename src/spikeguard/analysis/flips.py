"""Analysis ``flips``: which spikes an attack flips, by distance of the clean potential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from spikeguard.analysis.attacked import attacked, traces
from spikeguard.analysis.base import Passes, Section, batches, settings_of
from spikeguard.analysis.flip_charts import flip_plots
from spikeguard.analysis.flip_counts import BANDS, count_flips, joined
from spikeguard.analysis.image_intervals import HOW, share_quantities
from spikeguard.analysis.layer_lines import ALL, require_margin
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.membrane import NEAR, default_edges, relative_distance
from spikeguard.analysis.plots import Plot, Table
from spikeguard.analysis.texts import listed, setting_of, share_text
from spikeguard.attacks.base import Attack, cost
from spikeguard.data.images import Data
from spikeguard.system.progress import ProgressCallback

__all__ = ["Flips"]

_DIRECTIONS = ("0 to 1", "1 to 0")


@dataclass(frozen=True)
class Flips:
    """Count the spikes that an attack flips, by the distance of the clean potential.

    Args:
        attack: The attack; it states its threat set.
        margin: A potential is near the threshold if |v / v_th - 1| is below it, > 0.
        limit: Number of images; None for all.

    Raises:
        ValueError: If the margin is not positive.

    Source: TGO (arXiv:2602.20548) Fig. 1.
    """

    attack: Attack
    margin: float = NEAR
    limit: int | None = 256

    name: ClassVar[str] = "flips"
    title: ClassVar[str] = "Spikes that the attack flips"
    section: ClassVar[Section] = "membranes"
    source: ClassVar[str] = "TGO, Fig. 1"
    about: ClassVar[str] = (
        "A spike flips if a neuron fires at a step on the attacked image and not on the clean one, "
        "or the reverse, under the same noise. Distances are those of the clean potential. The "
        "flip rate says how easily potentials at a distance flip; their share of all flips also "
        "depends on how many potentials are there."
    )

    def __post_init__(self) -> None:
        require_margin("flips", self.margin)

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return counts by layer and distance, and shares with intervals.

        Raises:
            NotApplicable: If the network has no spiking layer.
            ValueError: If a clean potential is NaN, or the limit is below 1.
        """
        found: dict[str, list[dict[str, NDArray[Any]]]] = {}
        run = batches(model, data, limit=self.limit, batch_size=batch_size, progress=progress)
        for batch in run:
            x = attacked(model, batch, self.attack, seed)
            clean, other = (traces(model, batch, each, seed)[1] for each in (batch.x, x))
            for name, seen in clean.items():
                distance = relative_distance(name, seen)
                counts = count_flips(seen, other[name], distance, self.margin)
                found.setdefault(name, []).append(counts)
        return self._measurement({name: joined(parts) for name, parts in found.items()}, seed)

    def _measurement(
        self, found: Mapping[str, Mapping[str, NDArray[Any]]], seed: int
    ) -> Measurement:
        layers = [*found, ALL]

        def each(name: str) -> NDArray[Any]:
            """Return the counts of every image and layer, and of all layers: [images, layers]."""
            columns = np.stack([counts[name] for counts in found.values()], 1)
            return np.append(columns, columns.sum(1, keepdims=True), 1)

        whole, near = each("whole"), each("near")
        flips, near_flips = each("flips"), each("near_flips")
        bands = np.sum([counts["bands"] for counts in found.values()], 0)  # [images, 2, bands]
        margin = f"|v / v_th - 1| < {self.margin:g} on the clean image"
        shares = {
            "near_flips": (near_flips, flips, f"of the flips, those with {margin}"),
            "near": (near, whole, f"of the potentials, those with {margin}"),
            "rate": (flips, whole, "of the potentials, those whose spike flips"),
            "rate_near": (near_flips, near, f"flips of the potentials with {margin}"),
            "rate_far": (flips - near_flips, whole - near, "flips of the other potentials"),
            "new": (each("new"), flips, "of the flips, those from 0 to 1"),
        }
        quantities: dict[str, Any] = {}
        for name, (part, total, about) in shares.items():
            quantities |= share_quantities(name, part, total, ["layers"], about, seed)
        quantities |= share_quantities(
            "band_rate", bands[:, 1], bands[:, 0], ["band"], "flips of a band of distances", seed
        )
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            len(whole),
            {
                "layer": list(found),
                "layers": layers,
                "direction": _DIRECTIONS,
                "step": np.arange(1, 1 + len(next(iter(found.values()))["steps"])),
                "bin": default_edges()[:-1],
                "band": BANDS[:-1],
            },
            potentials=(
                [counts["bins"][0] for counts in found.values()],
                ["layer", "bin"],
                "potentials",
                "clean potentials; a bin's axis is its start",
            ),
            flips=(
                [counts["bins"][1:] for counts in found.values()],
                ["layer", "direction", "bin"],
                "flips",
                "flips by the clean potential",
            ),
            flips_by_step=(
                [counts["steps"] for counts in found.values()],
                ["layer", "step"],
                "flips",
                "flips of all images",
            ),
            shift=(
                np.sqrt(each("squares").sum(0) / whole.sum(0)),
                ["layers"],
                "v_th",
                "root mean square of the change of the potential",
            ),
            **quantities,
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return the attack, two recorded passes, and counting, as long as 26 passes, an image."""
        return Passes(forward=28 * samples, gradients=samples * cost(self.attack))

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the share of flips that begin near the threshold."""
        margin = setting_of(found, "margin")
        texts = {label: share_text(m, "near_flips", layers=ALL) for label, m in found.items()}
        return f"Flipped spikes that start within {margin} v_th of the threshold: {listed(texts)}"

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every layer, and for all layers, of every network."""
        columns = ("rate", "near_flips", "near", "rate_near", "rate_far", "new")
        rows = [
            (
                label,
                part,
                *(share_text(m, name, layers=part) for name in columns),
                f"{m.number('shift', layers=part):.2f}",
            )
            for label, m in found.items()
            for part in m.axes["layers"].tolist()
        ]
        head = (
            *("Network", "Layer", "Spikes that flip", "Near, of the flips"),
            *("Near, of all potentials", "Flips of those near", "Flips of the others"),
            *("From 0 to 1, of the flips", "Shift (v_th)"),
        )
        margin = setting_of(found, "margin")
        caption = (
            f"Near: the clean potential is within {margin} v_th of the threshold. {HOW}. Shift: "
            "root mean square of the change of the potential."
        )
        return Table(head, rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return flips by distance, flip rates by distance, and shares by layer."""
        return flip_plots(found, Flips.result(found))
