"""Record currents and spikes of foreign spiking layers in one pass; publish them as traces."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.models.adapters.foreign_neuron import ForeignError, ForeignNeuron
from spikeguard.models.adapters.presentation import taken

__all__ = ["over_time", "publishing"]


@contextmanager
def publishing(neurons: Collection[ForeignNeuron], T: int) -> Iterator[None]:
    """Publish a trace of each layer that is being recorded, from one pass of T steps in the block.

    Raises:
        ForeignError: If the potentials of a layer cannot be recorded.
    """
    watched = [n for n in neurons if n._recorders]
    seen: dict[ForeignNeuron, tuple[list[Tensor], list[Tensor]]] = {}
    handles = []
    for neuron in watched:
        currents, spikes = seen[neuron] = ([], [])

        def note(
            module: nn.Module,
            given: tuple[Any, ...],
            result: Any,
            currents: list[Tensor] = currents,
            spikes: list[Tensor] = spikes,
        ) -> None:
            currents.append(given[0])
            spikes.append(taken(result, 0))

        handles.append(neuron.module.register_forward_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for neuron, (currents, spikes) in seen.items():
        if not currents:
            continue
        current, fired = (over_time(neuron, part, T) for part in (currents, spikes))
        trace = neuron.trace(current, fired)
        for recorder in neuron._recorders:
            recorder.add(neuron, trace)


def over_time(neuron: ForeignNeuron, calls: list[Tensor], T: int) -> Tensor:
    """Join the tensors of one layer's calls into [T, B, ...].

    Raises:
        ForeignError: If the layer is used several times in one step.
    """
    if not neuron.framework.multistep(neuron.module):
        if len(calls) != T:
            raise ForeignError(
                f"record: {neuron.name} is called {len(calls)} times in T={T} steps, not once in "
                "each."
            )
        return torch.stack(calls)
    if len(calls) > 1:
        raise ForeignError(f"record: {neuron.name} is used {len(calls)} times in one pass.")
    whole = calls[0]
    if neuron.layout == "batch first":
        return whole.transpose(0, 1)
    folded = len(whole) != T and len(whole) % T == 0 if neuron.layout is None else False
    if folded or neuron.layout == "folded":
        return whole.reshape(T, -1, *whole.shape[1:])
    return whole
