"""Analysis ``operations``: synaptic operations, membrane updates and energy of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from spikeguard.analysis.activity import OF, mean_of
from spikeguard.analysis.base import (
    NotApplicable,
    Passes,
    Section,
    batches,
    count_of,
    settings_of,
)
from spikeguard.analysis.intervals import mean_interval
from spikeguard.analysis.layer_lines import layers_of
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.membrane_updates import updates_of
from spikeguard.analysis.plots import Plot, Series, Table
from spikeguard.analysis.texts import images_of, setting_of, span
from spikeguard.data.images import Data, as_image_set
from spikeguard.models.synaptic_operations import (
    count_operations,
    joined_operations,
    uncounted_layers,
)
from spikeguard.system.progress import ProgressCallback

__all__ = ["Operations"]

MAC_PJ = 4.6  # float32 multiplication 3.7 pJ and addition 0.9 pJ, 45 nm, 0.9 V: Horowitz 2014
AC_PJ = 0.9  # float32 addition: the same


@dataclass(frozen=True)
class Operations:
    r"""Count synaptic operations under NeuroBench's names, and estimate their energy.

    .. math::
        E = 4.6\,\mathrm{pJ} \cdot \mathrm{MAC} + 0.9\,\mathrm{pJ} \cdot \mathrm{AC}

    Args:
        limit: Number of images; None for all.
        mac_pj: Energy of a multiply-accumulate operation, in pJ.
        ac_pj: Energy of an accumulate operation, in pJ.

    Raises:
        ValueError: If an energy is negative.

    Source: NeuroBench (Yik et al., 2025, doi:10.1038/s41467-025-56739-4) for the names; Horowitz,
        "Computing's energy problem", ISSCC 2014, Fig. 1.1.9 for the energies (45 nm, float32,
        arithmetic only, no memory).
    """

    limit: int | None = 128
    mac_pj: float = MAC_PJ
    ac_pj: float = AC_PJ

    name: ClassVar[str] = "operations"
    title: ClassVar[str] = "Synaptic operations and energy"
    section: ClassVar[Section] = "activity"
    source: ClassVar[str] = "NeuroBench, Yik et al. 2025; energies: Horowitz, ISSCC 2014"
    about: ClassVar[str] = (
        "Operations on inputs and weights that are not 0: accumulate (AC) where the input is "
        "spikes, multiply-accumulate (MAC) where it is graded, as behind average pooling or a sum "
        "of spikes. Dense counts zeros too. Energy is that of the arithmetic alone."
    )

    def __post_init__(self) -> None:
        if not (self.mac_pj >= 0 and self.ac_pj >= 0):
            raise ValueError(
                f"operations: energies are >= 0 pJ, got mac_pj={self.mac_pj:g} and "
                f"ac_pj={self.ac_pj:g}."
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
        """Return operations along "layer", and totals with intervals over the images."""
        n = count_of(as_image_set(data), self.limit)
        with count_operations(model) as counts:
            passes, updates = [], []
            for batch in batches(
                model,
                data,
                limit=self.limit,
                batch_size=batch_size,
                progress=progress,
                what="operations",
            ):
                updates += updates_of(model, batch, seed)
                passes.append(dict(counts))
        layers = joined_operations(passes)
        if not layers:
            raise NotApplicable("operations needs convolutions or linear layers called as modules.")
        T = int(getattr(model, "T", 1))
        repeats = np.array(
            [T // layer.steps if layer.steps < T else 1 for layer in layers.values()]
        )
        graded = np.array([layer.graded for layer in layers.values()])
        done = np.stack([layer.effective.cpu().numpy() for layer in layers.values()])  # [L, n]
        dense = np.array([layer.dense for layer in layers.values()])
        ac, mac = done[~graded].sum(0), done[graded].sum(0)
        every = (done * repeats[:, None])[graded].sum(0)
        nj = (self.mac_pj * mac + self.ac_pj * ac) / 1000
        nj_every = (self.mac_pj * every + self.ac_pj * ac) / 1000
        text = "mean over the images with its 95 % interval"
        unit = "operations an image"
        once = "steps that are equal are computed once"
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            n,
            {"layer": list(layers), "of": list(OF), "uncounted": uncounted_layers(model)},
            kind=(np.where(graded, "MAC", "AC"), ["layer"], "", "kind of its operations"),
            effective=(done.mean(1), ["layer"], unit, "inputs and weights that are not 0"),
            dense=(dense, ["layer"], unit, "all inputs and weights"),
            steps=([layer.steps for layer in layers.values()], ["layer"], "steps", once),
            not_counted=(uncounted_layers(model), ["uncounted"], "", "layers left out"),
            Effective_ACs=(mean_interval(ac), ["of"], unit, text),
            Effective_MACs=(mean_interval(mac), ["of"], unit, f"{text}; {once}"),
            Dense=(float(dense.sum()), [], unit, f"all inputs and weights; {once}"),
            Membrane_Updates=(
                mean_interval(updates),
                ["of"],
                "updates an image",
                f"potentials; {text}",
            ),
            energy=(mean_interval(nj), ["of"], "nJ", text),
            every_step_MACs=(mean_interval(every), ["of"], unit, f"{text}; every step computed"),
            every_step_Dense=(float((dense * repeats).sum()), [], unit, "every step computed"),
            every_step_energy=(
                mean_interval(nj_every),
                ["of"],
                "nJ",
                f"{text}; every step computed",
            ),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return the cost of a pass that also records potentials, three times that of one."""
        return Passes(forward=3 * samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the synaptic operations of an image."""
        totals = {label: _operations(m) for label, m in found.items()}
        return "Synaptic operations of an image: " + span(totals, lambda number: f"{number:,.0f}")

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return one row for each network."""
        rows = [
            (
                label,
                mean_of(m, "Effective_ACs"),
                mean_of(m, "Effective_MACs"),
                f"{float(m['Dense']):,.0f}",
                mean_of(m, "Membrane_Updates"),
                mean_of(m, "energy"),
                mean_of(m, "every_step_MACs"),
                mean_of(m, "every_step_energy"),
            )
            for label, m in found.items()
        ]
        left_out = sorted({name for m in found.values() for name in m["not_counted"].tolist()})
        caption = (
            f"Means of the first {images_of(found)} test images with 95 % intervals. "
            f"{setting_of(found, 'mac_pj')} pJ a MAC, {setting_of(found, 'ac_pj')} pJ an AC. "
            "Layers before the first neuron are computed once where all steps are equal, as with "
            "direct coding; the last two columns compute them in every step."
        )
        if left_out:
            caption += f" Not counted: {', '.join(left_out)}."
        head = ("Network", "Effective ACs", "Effective MACs", "Dense", "Membrane updates")
        every = ("MACs, every step", "Energy (nJ), every step")
        return Table((*head, "Energy (nJ)", *every), rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return operations by layer, and the energy of ACs and MACs."""
        by_layer = [
            Series(
                layers_of(found, label),
                np.where(m["effective"] > 0, m["effective"], np.nan),
                label,
                label,
            )
            for label, m in found.items()
        ]
        of_ac, of_mac = [], []
        for m in found.values():
            of_ac.append(m.settings["ac_pj"] * m.number("Effective_ACs", of="mean") / 1000)
            of_mac.append(m.settings["mac_pj"] * m.number("Effective_MACs", of="mean") / 1000)
        energy = {label: m.number("energy", of="mean") for label, m in found.items()}
        labels = list(found)
        return [
            Plot(
                "by-layer",
                "Operations by layer",
                Operations.result(found),
                by_layer,
                x_title="Convolution or linear layer",
                y_title="Operations an image",
                y_log=True,
            ),
            Plot(
                "energy",
                "Energy of an image",
                f"Energy of the arithmetic: {span(energy, lambda number: f'{number:,.0f} nJ')}",
                [
                    Series(labels, of_mac, "MAC", kind="bars"),
                    Series(labels, of_ac, "AC", kind="bars", dash="dash"),
                ],
                y_title="Energy (nJ)",
            ),
        ]


def _operations(m: Measurement) -> float:
    """Return effective ACs and MACs together."""
    return sum(m.number(key, of="mean") for key in ("Effective_ACs", "Effective_MACs"))
