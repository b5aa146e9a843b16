"""Cut foreign spiking layers out of the autograd graph of one pass, or replace their output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.models.adapters.presentation import taken
from spikeguard.models.adapters.recording import over_time

__all__ = ["Cut", "cutting", "replacing"]


@dataclass(eq=False)
class Cut:
    """One layer in one pass: its input currents, and leaves of the graph in place of its spikes.

    Attributes:
        neuron: The layer.
        T: Time steps.
        currents: Input currents, one tensor per call, part of the graph.
        leaves: Output spikes, one tensor per call; no gradient flows from them to the currents.
    """

    neuron: ForeignNeuron
    T: int
    currents: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def joined(self, calls: Sequence[Tensor]) -> Tensor:
        """Join the tensors of all calls into one [T, B, *N]."""
        return over_time(self.neuron, list(calls), self.T)

    def split(self, whole: Tensor) -> list[Tensor]:
        """Split a tensor [T, B, *N] into one tensor per call."""
        if not self.neuron.framework.multistep(self.neuron.module):
            return list(whole)
        if self.neuron.layout == "batch first":
            whole = whole.transpose(0, 1)
        return [whole.reshape(self.currents[0].shape)]


@contextmanager
def cutting(neurons: Collection[ForeignNeuron], T: int) -> Iterator[list[Cut]]:
    """Cut the layers out of the pass inside the block; the list fills in the order of calls."""
    cuts: list[Cut] = []
    found: dict[ForeignNeuron, Cut] = {}

    def cut(neuron: ForeignNeuron, current: Tensor, spikes: Tensor) -> Tensor:
        if neuron not in found:
            found[neuron] = Cut(neuron, T)
            cuts.append(found[neuron])
        leaf = spikes.detach().requires_grad_()
        found[neuron].currents.append(current)
        found[neuron].leaves.append(leaf)
        return leaf

    with replacing(neurons, cut):
        yield cuts


@contextmanager
def replacing(
    neurons: Collection[ForeignNeuron], output: Callable[[ForeignNeuron, Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Replace the spikes of each layer by ``output(neuron, current, spikes)`` in the block."""
    handles = []
    for neuron in neurons:

        def hook(
            module: nn.Module, given: tuple[Any, ...], result: Any, neuron: ForeignNeuron = neuron
        ) -> Any:
            other = output(neuron, given[0], taken(result, 0))
            return (other, *result[1:]) if isinstance(result, tuple) else other

        handles.append(neuron.module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
