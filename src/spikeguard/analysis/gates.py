"""Analysis ``gates``: the trained gates of DLIF by layer and time step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from spikeguard.analysis.base import NotApplicable, Passes, Section, settings_of
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Heat, Plot, Rule, Series, Table
from spikeguard.data.images import Data
from spikeguard.neurons.dlif import DLIF
from spikeguard.system.progress import ProgressCallback

__all__ = ["Gates"]


@dataclass(frozen=True)
class Gates:
    """Read the gates a[t] of every DLIF layer; a LIF neuron has gates of 1. No image is used.

    Source: Ding et al., "Robust stable spiking neural networks", ICML 2024, Fig. 4.
    """

    exempt_from: ClassVar[frozenset[str]] = frozenset({"images"})

    name: ClassVar[str] = "gates"
    title: ClassVar[str] = "Gates of DLIF"
    section: ClassVar[Section] = "membranes"
    source: ClassVar[str] = "stable-snn paper, section 3.3 and Fig. 4"
    about: ClassVar[str] = (
        "Trained factor a[t] of every DLIF layer and step on the input current or on the leak; 1 "
        "is a LIF neuron. The effective decay is the leak factor that a LIF neuron would need."
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
        r"""Return the gates and the effective decay along "layer" and "step".

        With a gate on the leak the effective decay is :math:`\lambda a[t]`. With a gate on the
        input, v / a follows the recurrence of an ungated neuron with decay
        :math:`\lambda a[t-1] / a[t]` and threshold v_th / a[t]; NaN where a gate is not positive.
        The first step has no decay: NaN.

        Raises:
            NotApplicable: If the network has no DLIF layer, or layers with other numbers of steps.
        """
        layers = {name: m for name, m in model.named_modules() if isinstance(m, DLIF)}
        if not layers:
            raise NotApplicable("the network has no DLIF layer")
        if len({len(layer.a) for layer in layers.values()}) > 1:
            raise NotApplicable("its DLIF layers have different numbers of steps")
        a = np.stack([layer.a.detach().double().cpu().numpy() for layer in layers.values()])
        decay = np.array([layer.decay for layer in layers.values()])
        on_leak = np.array([layer.gate == "leak" for layer in layers.values()])
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = np.where((a[:, :-1] > 0) & (a[:, 1:] > 0), a[:, :-1] / a[:, 1:], np.nan)
        factor = np.where(on_leak[:, None], a[:, 1:], moved)
        effective = np.concatenate([np.full((len(a), 1), np.nan), decay[:, None] * factor], axis=1)
        along = ["layer", "step"]
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            0,
            {"layer": list(layers), "step": np.arange(1, a.shape[1] + 1)},
            gate=(a, along, "1", "gate a[t]; 1 before training"),
            effective_decay=(effective, along, "1", "leak factor of an equal neuron without gates"),
            decay=(decay, ["layer"], "1", "leak factor lambda"),
            on=(np.where(on_leak, "leak", "input"), ["layer"], "", "what the gate multiplies"),
            of_layer=(a.mean(1), ["layer"], "1", "mean of the gates over the steps"),
            of_step=(a.mean(0), ["step"], "1", "mean of the gates over the layers"),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return no passes: only parameters are read."""
        return Passes()

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the range of the gates."""
        return "Gates of DLIF after training: " + ", ".join(
            f"{m['gate'].min():.2f} to {m['gate'].max():.2f}, mean {m['gate'].mean():.2f}"
            + (f" ({label})" if len(found) > 1 else "")
            for label, m in found.items()
        )

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every layer of every network."""
        rows = [
            (
                label,
                str(layer),
                str(m["on"][i]),
                f"{m['decay'][i]:g}",
                ", ".join(f"{gate:.3f}" for gate in m["gate"][i]),
                ", ".join(f"{value:.3f}" for value in m["effective_decay"][i][1:]),
            )
            for label, m in found.items()
            for i, layer in enumerate(m.axes["layer"])
        ]
        caption = "Parameters of the trained network; no images are involved."
        head = ("Network", "Layer", "On", "Decay", "Gates, step by step", "Effective decay")
        return Table(head, rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return the gates of every network, and their means over layers and over steps."""
        return [*_grids(found), *_means(found)]


def _grids(found: Mapping[str, Measurement]) -> Iterator[Plot]:
    """Yield one grid a network, all on one scale around 1."""
    span = max(0.05, *(float(np.abs(m["gate"] - 1).max()) for m in found.values()))
    for place, (label, m) in enumerate(found.items()):
        yield Plot(
            f"grid-{place}",
            "Gates by layer and step",
            f"{label}: gates from {m['gate'].min():.2f} to {m['gate'].max():.2f}; they were 1 "
            "before training.",
            [
                Heat(
                    m["gate"],
                    [str(step) for step in m.axes["step"]],
                    [str(layer) for layer in m.axes["layer"]],
                    "Gate a[t]",
                    low=1 - span,
                    high=1 + span,
                    diverging=True,
                )
            ],
            x_title="Time step",
            y_title="DLIF layer",
            network=label,
        )


def _means(found: Mapping[str, Measurement]) -> Iterator[Plot]:
    """Yield the means over the layers by step, and over the steps by layer (Fig. 4 c, d)."""
    for axis, name, title, x_title in (
        ("step", "of_step", "Mean gate of each step", "Time step"),
        ("layer", "of_layer", "Mean gate of each layer", "DLIF layer, in network order"),
    ):
        marks, words = [], []
        for label, m in found.items():
            x = [str(place + 1) for place in range(len(m.axes[axis]))]
            marks.append(Series(x, m[name], label, label))
            words.append(f"{m[name][0]:.2f} to {m[name][-1]:.2f} ({label})")
        yield Plot(
            f"mean-of-{axis}",
            title,
            f"From the first to the last {axis}: {', '.join(words)}.",
            marks,
            x_title=x_title,
            y_title="Gate a[t], mean",
            rules=[Rule(1, "LIF", "y")],
        )
