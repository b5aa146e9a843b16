"""Analysis ``gain``: L2 gain of every layer for an attack and a random perturbation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.analysis.attacked import attacked, traces
from spikeguard.analysis.base import Passes, Section, batches, count_of, settings_of
from spikeguard.analysis.intervals import mean_over_images
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.perturbed import as_far_at_random, norms
from spikeguard.analysis.plots import Plot, Series, Table
from spikeguard.analysis.texts import half_text, images_of, labelled
from spikeguard.attacks.base import Attack, cost
from spikeguard.data.images import Data, as_image_set
from spikeguard.neurons.trace import LayerTrace
from spikeguard.system.progress import ProgressCallback

__all__ = ["Gain", "layer_gains"]

_KINDS = ("attack", "random")
_GAINS = {
    "currents": "change of the input current of the layer over the change of the image",
    "spikes": "change of the spikes of the layer over the change of the image",
    "weights": "change of the current over that of the spikes of the layer before it",
    "neurons": "change of the spikes over that of the current of the same layer",
}

_SHOWN = ("spikes", "weights", "neurons")  # in the table


def layer_gains(
    image: Tensor, clean: Mapping[str, LayerTrace], other: Mapping[str, LayerTrace]
) -> dict[str, Tensor]:
    r"""Return the L2 gains of every layer for every image, [layers, B] each.

    A gain is the ratio of two norms over steps and neurons, :math:`\|\Delta y\| / \|\Delta x\|`. It
    is NaN where the denominator is 0. Currents are in units of the threshold above rest; an image
    counts at each of the T steps, an event frame at its own.

    Args:
        image: Change of the images [B, C, H, W], or of event frames [B, T, C, H, W].
        clean: Traces on the clean images.
        other: Traces on the perturbed images, under the same noise.

    Returns:
        "currents" and "spikes" from the image; "weights" from the spikes of the layer before (the
        image for the first one) to the current, "neurons" from current to spikes. "Before" is the
        order of the network; a layer behind a shortcut has other inputs, too.
    """
    steps = len(next(iter(clean.values())).v)
    repeats = 1 if image.ndim == 5 else steps
    shown = repeats**0.5 * norms(image)
    rows: dict[str, list[Tensor]] = {name: [] for name in _GAINS}
    before = shown
    for name, own in clean.items():
        scale = own.v_th - own.v_reset
        current = _norm(own.current.double() - other[name].current.double()) / scale
        spikes = _norm(own.spikes.double() - other[name].spikes.double())
        for key, above, below in (
            ("currents", current, shown),
            ("spikes", spikes, shown),
            ("weights", current, before),
            ("neurons", spikes, current),
        ):
            rows[key].append(torch.where(below > 0, above / below, torch.nan))
        before = spikes
    return {key: torch.stack(row) for key, row in rows.items()}


def _norm(change: Tensor) -> Tensor:
    return norms(change.transpose(0, 1))


@dataclass(frozen=True)
class Gain:
    """Measure by how much every layer amplifies the perturbation of an image.

    Args:
        attack: The attack.
        limit: Number of images; None for all.

    Source: Ding et al., "Robust stable spiking neural networks", ICML 2024, Definition 2.1.
    """

    attack: Attack
    limit: int | None = 64

    name: ClassVar[str] = "gain"
    title: ClassVar[str] = "L2 gain by layer"
    section: ClassVar[Section] = "membranes"
    source: ClassVar[str] = "stable-snn paper, Definition 2.1 and Theorem 3.1"
    about: ClassVar[str] = (
        "Norm of the change of currents and spikes over the norm of the change of the input, for "
        "the attack and for random perturbations of the same L2 norm. A layer amplifies where the "
        "gain of its weights times that of its neurons is above 1."
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
        """Return mean gains, half intervals and numbers of images along "kind" and "layer"."""
        parts: dict[str, list[Tensor]] = {name: [] for name in _GAINS}
        layers: list[str] = []
        for batch in batches(
            model, data, limit=self.limit, batch_size=batch_size, progress=progress
        ):
            _, clean = traces(model, batch, batch.x, seed)
            layers = list(clean)
            x_adv = attacked(model, batch, self.attack, seed)
            streams = batch.streams(seed, "random")
            far = as_far_at_random(batch.x, x_adv, self.attack.threat, streams)
            found = [
                layer_gains(x - batch.x, clean, traces(model, batch, x, seed)[1])
                for x in (x_adv, far)
            ]
            for name, part in parts.items():
                part.append(torch.stack([each[name] for each in found]).cpu())
        along = ("kind", "layer")
        quantities = {}
        for name, about in _GAINS.items():
            values = torch.cat(parts[name], -1).numpy()
            mean, half = mean_over_images(values)
            quantities[name] = (mean, along, "1", f"{about}; mean over images")
            quantities[f"{name}_half"] = (half, along, "1", f"half the 95 % interval of {name}")
            known = np.isfinite(values).sum(-1)
            quantities[f"{name}_n"] = (known, along, "images", f"images with a defined {name}")
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            count_of(as_image_set(data), self.limit),
            {"kind": list(_KINDS), "layer": layers},
            **quantities,
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return one attack and three recorded passes an image."""
        return Passes(forward=9 * samples, gradients=samples * cost(self.attack))

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the gain from the image to the last spikes, attack against random."""
        start = "Gain from the image to the last spikes, attack / random"
        last = {label: m["spikes"][:, -1] for label, m in found.items()}
        texts = {label: f"{attack:.2f} / {chance:.2f}" for label, (attack, chance) in last.items()}
        return f"{start}: {labelled(texts)}"

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every layer of every network."""

        def cell(m: Measurement, name: str, kind: int, place: int) -> str:
            return half_text(m[name][kind, place], m[f"{name}_half"][kind, place])

        rows = [
            (label, str(layer), *(cell(m, name, k, i) for name in _SHOWN for k in (0, 1)))
            for label, m in found.items()
            for i, layer in enumerate(m.axes["layer"])
        ]
        head = [f"{name.capitalize()}, {kind}" for name in _SHOWN for kind in _KINDS]
        return Table(
            ("Network", "Layer", *head),
            rows,
            f"{images_of(found)} images, mean ± half the 95 % interval; images without a change of "
            "the input of a gain are left out. Spikes: from the image. Weights: from the spikes of "
            "the layer before to the current. Neurons: from the current to the spikes of the "
            "layer.",
        )

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return one chart a gain, a line for every network, attack and random."""
        return list(_charts(found))


_TITLES = {
    "spikes": "Image to spikes",
    "currents": "Image to currents",
    "weights": "Weights: spikes to current",
    "neurons": "Neurons: current to spikes",
}


def _charts(found: Mapping[str, Measurement]) -> Iterator[Plot]:
    for name, title in _TITLES.items():
        marks, words = [], []
        for label, m in found.items():
            place = [str(i + 1) for i in range(len(m.axes["layer"]))]
            for kind, dash in ((0, "solid"), (1, "dot")):
                y, half = m[name][kind], m[f"{name}_half"][kind]
                text = f"{label}, random" if kind else label
                low, high = y - half, y + half
                marks.append(
                    Series(place, y, text, label, low=low, high=high, dash=dash, legend=not kind)  # type: ignore[arg-type]
                )
            words.append(f"{m[name][0, -1]:.2f} against {m[name][1, -1]:.2f} ({label})")
        yield Plot(
            f"gain-{name}",
            f"{title} (solid: attack, dotted: random)",
            f"In the last layer, attack against random: {', '.join(words)}. Bars are 95 % "
            "intervals over images.",
            marks,
            x_title="Spiking layer, in network order",
            y_title="L2 gain",
            y_log=name == "weights",
        )
