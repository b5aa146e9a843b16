"""Analysis ``traces``: potentials of chosen neurons over time, clean and attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeguard.analysis.attacked import attacked, traces
from spikeguard.analysis.base import Passes, Section, batches, count_of, settings_of
from spikeguard.analysis.image_intervals import HOW, share_quantities
from spikeguard.analysis.layer_lines import ALL
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.neuron_choice import MostChanged, Neuron, parse_neurons, random_neurons
from spikeguard.analysis.plots import Plot, Rule, Series, Table
from spikeguard.analysis.texts import listed, share_text
from spikeguard.attacks.base import Attack, cost
from spikeguard.data.images import Data, as_image_set
from spikeguard.neurons.trace import LayerTrace
from spikeguard.system.progress import ProgressCallback

__all__ = ["Traces"]

_INPUTS = ("clean", "attacked")
_GIVEN, _MOST, _RANDOM = "given", "largest change", "random"


@dataclass(frozen=True)
class Traces:
    """Record the potential of chosen neurons on a clean and an attacked image.

    The rule: the neurons that are given; then, of all images, those whose spike count changes most
    (the first of every layer, largest change first; ties go to the first image and neuron); then
    random ones (a uniform layer, a uniform neuron and image).

    Args:
        attack: The attack; it states its threat set.
        neurons: Neurons as ``LAYER:PLACE@IMAGE`` with commas between them; PLACE counts the neurons
            of the flattened layer, IMAGE the images from 0. None for none.
        changed: Number of neurons whose spike count changes most, >= 0.
        random: Number of random neurons, >= 0.
        limit: Number of images; None for all.

    Raises:
        ValueError: If a number is negative, no neuron is left, or ``neurons`` has another form.

    Source: TGO (arXiv:2602.20548) Fig. 1.
    """

    attack: Attack
    neurons: str | None = None
    changed: int = 2
    random: int = 2
    limit: int | None = 128

    name: ClassVar[str] = "traces"
    title: ClassVar[str] = "Potentials of single neurons, clean and attacked"
    section: ClassVar[Section] = "membranes"
    source: ClassVar[str] = "TGO, Fig. 1"
    about: ClassVar[str] = (
        "Potentials before reset over the time steps, in units of the threshold; at 1 or above the "
        "neuron fires. Clean: solid; attacked, under the same noise: dotted. Neurons whose spike "
        "count changes most are extreme cases by choice; random ones are typical."
    )

    def __post_init__(self) -> None:
        if min(self.changed, self.random) < 0 or not (
            parse_neurons(self.neurons) or self.changed or self.random
        ):
            raise ValueError(
                "traces: changed and random are numbers of neurons >= 0, at least one neuron in "
                f"all, got {self.changed} and {self.random}."
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
        """Return potentials and spikes of the chosen neurons, and how many neurons change at all.

        Raises:
            NotApplicable: If the network has no spiking layer.
            ValueError: If a given neuron does not exist, or the limit is below 1.
        """
        n = count_of(as_image_set(data), self.limit)
        most, wanted = MostChanged(self.changed, {}), dict[Neuron, str]()
        kept: dict[Neuron, NDArray[np.float64]] = {}
        changed: dict[str, list[NDArray[np.int64]]] = {}
        sizes: dict[str, int] = {}
        run = batches(model, data, limit=self.limit, batch_size=batch_size, progress=progress)
        for batch in run:
            first = int(batch.index[0])
            x = attacked(model, batch, self.attack, seed)
            both = [traces(model, batch, each, seed)[1] for each in (batch.x, x)]
            if not sizes:
                sizes = {name: seen.v[0, 0].numel() for name, seen in both[0].items()}
                wanted = self._wanted(sizes, n, seed)
            for name in sizes:
                change = _change(*(each[name] for each in both))
                most.add(name, change, first)
                changed.setdefault(name, []).append((change > 0).sum(1).cpu().numpy())
            for neuron in {*wanted, *most.kept()}:
                if first <= neuron.image < first + len(batch.x):
                    seen = [each[neuron.layer] for each in both]
                    kept[neuron] = _record(seen, neuron, neuron.image - first)
        reasons = {neuron: _GIVEN for neuron, why in wanted.items() if why == _GIVEN}
        reasons |= {neuron: _MOST for neuron in most.chosen() if neuron not in reasons}
        reasons |= {neuron: why for neuron, why in wanted.items() if neuron not in reasons}
        counts = np.stack([np.concatenate(each) for each in changed.values()], 1)
        return self._measurement(reasons, kept, sizes, counts, seed)

    def _wanted(self, sizes: dict[str, int], images: int, seed: int) -> dict[Neuron, str]:
        """Return the given and the random neurons."""
        given = parse_neurons(self.neurons)
        for neuron in given:
            if neuron.layer not in sizes:
                raise ValueError(
                    f"traces: {neuron} names no spiking layer; there are {', '.join(sizes)}."
                )
            if neuron.place >= sizes[neuron.layer] or neuron.image >= images:
                raise ValueError(
                    f"traces: {neuron} does not exist; {neuron.layer} has neurons 0 to "
                    f"{sizes[neuron.layer] - 1}, and there are images 0 to {images - 1}."
                )
        drawn = random_neurons(sizes, images, self.random, seed)
        return dict.fromkeys(given, _GIVEN) | {n: _RANDOM for n in drawn if n not in given}

    def _measurement(
        self,
        reasons: Mapping[Neuron, str],
        kept: Mapping[Neuron, NDArray[np.float64]],
        sizes: Mapping[str, int],
        changed: NDArray[np.int64],
        seed: int,
    ) -> Measurement:
        """Return the measurement; ``changed`` are neurons [images, layers] with another count."""
        records = np.stack([kept[neuron] for neuron in reasons])  # [neuron, v or spikes, input, T]
        whole = np.array([*sizes.values(), sum(sizes.values())])
        part = np.append(changed, changed.sum(1, keepdims=True), 1)
        axes = ["neuron", "input", "step"]
        about = "neurons whose number of spikes changes"
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            len(changed),
            {
                "neuron": [str(neuron) for neuron in reasons],
                "input": _INPUTS,
                "step": np.arange(1, records.shape[-1] + 1),
                "layers": [*sizes, ALL],
            },
            v=(records[:, 0], axes, "v_th", "potential before reset"),
            spikes=(records[:, 1], axes, "spikes", "1 where the neuron fires"),
            chosen=(list(reasons.values()), ["neuron"], "", "why the neuron was chosen"),
            **share_quantities("changed", part, whole, ["layers"], about, seed),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return the attack and two recorded passes an image."""
        return Passes(forward=3 * samples, gradients=samples * cost(self.attack))

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the share of neurons whose number of spikes changes."""
        texts = {label: share_text(m, "changed", layers=ALL) for label, m in found.items()}
        return f"Neurons whose number of spikes the attack changes: {listed(texts)}"

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every chosen neuron of every network."""
        rows = []
        for label, m in found.items():
            for place, name in enumerate(m.axes["neuron"].tolist()):
                texts = [
                    ", ".join(f"{v:.2f}{'*' if s else ''}" for v, s in zip(*each, strict=True))
                    for each in zip(m["v"][place], m["spikes"][place], strict=True)
                ]
                rows.append((label, name, m["chosen"][place], *texts))
        caption = (
            "Neuron: layer, place in the flattened layer, and image, all counted from 0. * marks a "
            f"spike. The share of neurons that change: {HOW}."
        )
        return Table(("Network", "Neuron", "Chosen", "Clean", "Attacked"), rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return one small chart a neuron, on shared axes."""
        values = np.concatenate([m["v"].ravel() for m in found.values()])
        low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
        room = 0.06 * (high - low)
        plots = []
        for label, m in found.items():
            for place, name in enumerate(m.axes["neuron"].tolist()):
                marks = [
                    Series(m.axes["step"], v, word, label, dash=dash)  # type: ignore[arg-type]
                    for v, word, dash in zip(m["v"][place], _INPUTS, ("solid", "dot"), strict=True)
                ]
                clean, other = (int(each.sum()) for each in m["spikes"][place])
                plots.append(
                    Plot(
                        "".join(c if c.isalnum() else "-" for c in f"{label}-{name}"),
                        name.replace("@", ", image "),
                        f"{label}, {name}: {clean} spikes on the clean image, {other} on the "
                        "attacked one.",
                        marks,
                        x_title=f"Step; {m['chosen'][place]}",
                        y_title="v / v_th",
                        y_range=(low - room, high + room),
                        rules=(Rule(1, "", "y"),),
                        network=label,
                        width="small",
                        height=220,
                    )
                )
        return plots


def _change(clean: LayerTrace, other: LayerTrace) -> Tensor:
    """Return how much every neuron's number of spikes changes [B, neurons]."""
    counts = [(each.spikes > 0).sum(0).flatten(1) for each in (clean, other)]
    return (counts[1] - counts[0]).abs().float()


def _record(seen: Sequence[LayerTrace], neuron: Neuron, row: int) -> NDArray[np.float64]:
    """Return v / v_th and spikes of a neuron [v or spikes, input, T]."""

    def of(values: Tensor) -> Tensor:
        return values[:, row].flatten(1)[:, neuron.place].double()

    parts = [[of(t.v) / t.v_th for t in seen], [(of(t.spikes) > 0).double() for t in seen]]
    return np.array([[each.cpu().numpy() for each in part] for part in parts])
