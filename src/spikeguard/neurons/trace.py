"""Traces of spiking layers, and the recorder that collects them during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from spikeguard.kernels.reference import Reset, reset_potential
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["LayerTrace", "Recorder", "SpikingLayer", "Trace"]


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """Trace of one spiking layer in one forward pass: tensors [T, B, *N], all differentiable.

    Attributes:
        current: Input current I.
        v: Membrane potential before reset, noise included, which is compared with the threshold.
        spikes: Output in {0, 1}.
        noise: The noise inside v, or None.
        v_th: The layer's threshold.
        surrogate: The surrogate its backward pass used.
        reset: "hard" or "soft".
        detach_reset: Whether the layer blocks the gradient through its reset term.
        v_reset: The potential after a hard reset.
        decay: Leak factor: a number, a scalar, or a tensor that broadcasts to [T, B, *N]; None if
            it is not known, as for a foreign neuron.
        gate: Factor on the input current, shaped like a tensor ``decay``; None is 1.
    """

    current: Tensor
    v: Tensor
    spikes: Tensor
    noise: Tensor | None
    v_th: float
    surrogate: Surrogate
    reset: Reset
    detach_reset: bool = False
    v_reset: float = 0.0
    decay: float | Tensor | None = None
    gate: Tensor | None = None

    @property
    def u(self) -> Tensor:
        """Membrane potential after reset, differentiable as in the layer itself."""
        spikes = self.spikes.detach() if self.detach_reset else self.spikes
        if not self.v_reset:
            return reset_potential(self.v, spikes, self.v_th, self.reset)
        return self.v_reset + reset_potential(
            self.v - self.v_reset, spikes, self.v_th - self.v_reset, self.reset
        )

    @property
    def v_before_noise(self) -> Tensor:
        """Membrane potential before reset, without the noise of its own step."""
        return self.v if self.noise is None else self.v - self.noise


Trace = Mapping[str, LayerTrace]


class SpikingLayer(Protocol):
    """A layer with an exchangeable surrogate that passes its trace to open recorders."""

    surrogate: Surrogate
    _recorders: list[Recorder]


class Recorder(Mapping[str, LayerTrace]):
    """A mapping from layer names, in network order, to the traces of the last forward pass."""

    def __init__(self, layers: Mapping[str, SpikingLayer]):
        self._name = {layer: name for name, layer in layers.items()}
        self._seen: dict[str, LayerTrace] = {}
        for neuron in self._name:
            neuron._recorders.append(self)

    def add(self, neuron: SpikingLayer, seen: LayerTrace) -> None:
        """Store the trace of a layer; it replaces the layer's previous one."""
        self._seen.pop(self._name[neuron], None)
        self._seen[self._name[neuron]] = seen

    def close(self) -> None:
        """Stop recording. Traces recorded so far stay available."""
        for neuron in self._name:
            neuron._recorders = [r for r in neuron._recorders if r is not self]

    def __getitem__(self, name: str) -> LayerTrace:
        if name not in self._seen:
            known = ", ".join(self._seen) or "none: call the model inside the block first"
            raise KeyError(f"no spiking layer {name!r} was recorded; recorded: {known}")
        return self._seen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)
