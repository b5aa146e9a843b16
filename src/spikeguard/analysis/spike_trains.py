"""Spike trains of every layer in several conditions, collected for their correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.analysis.attacked import recorded
from spikeguard.analysis.base import Batch, NotApplicable
from spikeguard.analysis.correlation import MeanCorrelation, shuffled
from spikeguard.analysis.frames import present_frames
from spikeguard.models.adapters.foreign_neuron import ForeignError
from spikeguard.neurons.modes import record
from spikeguard.rng import stream

__all__ = ["TIMES", "LayerTrains", "SpikeTrains"]

TIMES = ("observed", "shuffled")


@dataclass(frozen=True, eq=False)
class LayerTrains:
    """Correlations of one layer.

    Attributes:
        neurons: Number of its neurons.
        chosen: The neurons that are correlated [N], in the order of the layer.
        readout: Whether it is the last layer and has one neuron a class.
        found: Correlations by condition and time, such as ("clean", "shuffled").
    """

    neurons: int
    chosen: Tensor
    readout: bool
    found: dict[tuple[str, str], MeanCorrelation]


class SpikeTrains:
    """Collect the trains of every layer, as observed and with shuffled time.

    Args:
        conditions: Names of the conditions.
        neurons: Number of neurons of a layer that are correlated; a larger layer is represented by
            a random sample of this size, the same for all images and conditions.
        seed: Seed of the sample, the shuffling and the network's noise.
    """

    def __init__(self, conditions: Sequence[str], neurons: int, seed: int):
        self._conditions, self._neurons, self._seed = conditions, neurons, seed
        self.layers: dict[str, LayerTrains] = {}

    def add(self, model: nn.Module, images: Batch, frames: Tensor, condition: str) -> None:
        """Run the network and add the trains of some images.

        Args:
            model: The network; left unchanged.
            images: The images, for their random streams.
            frames: Input of every step [T, B, ...].
            condition: One of the conditions.

        Raises:
            NotApplicable: If the network has no spiking layer, or one that cannot be recorded.
        """
        if not len(images.y):
            return
        try:
            with record(model) as seen, recorded(model, images, self._seed):
                logits = present_frames(model, frames)
        except ForeignError as error:
            raise NotApplicable(str(error)) from error
        if not seen:
            raise NotApplicable(f"{type(model).__name__} has no spiking layer to record.")
        names = list(seen)
        for name, trace in seen.items():
            trains = trace.spikes.detach().transpose(0, 1).flatten(2).cpu()
            if name not in self.layers:
                readout = name == names[-1] and trains.shape[2] == logits.shape[1]
                self.layers[name] = self._layer(name, trains.shape[2], readout)
            layer = self.layers[name]
            chosen = trains[:, :, layer.chosen]
            streams = images.streams(self._seed, f"shuffle {condition} {name}")
            layer.found[condition, "observed"].add(chosen)
            layer.found[condition, "shuffled"].add(shuffled(chosen, streams))

    def last_hidden(self) -> str:
        """Return the name of the last layer that is not the readout, as far as there is one."""
        hidden = [name for name, layer in self.layers.items() if not layer.readout]
        return [*self.layers, *hidden][-1]

    def _layer(self, name: str, neurons: int, readout: bool) -> LayerTrains:
        chosen = torch.arange(neurons)
        if neurons > self._neurons:
            draw = torch.randperm(
                neurons, generator=stream(self._seed, "analysis", "neurons", name)
            )
            chosen = draw[: self._neurons].sort().values
        found = {(c, t): MeanCorrelation() for c in self._conditions for t in TIMES}
        return LayerTrains(neurons, chosen, readout, found)
