"""Spikes per layer, step and image, counted during a forward pass without storing potentials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.kernels.layout import Layout
from spikeguard.kernels.observation import Reader
from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.models.adapters.presentation import taken
from spikeguard.models.adapters.recording import over_time
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.spike_marks import are_spikes

__all__ = ["LayerSpikes", "SpikeCounts", "count_spikes", "joined_spikes"]

EXACT = 2**24  # float32 holds every whole number up to this one


@dataclass(frozen=True, eq=False)
class LayerSpikes:
    """Spikes that one layer emits in one forward pass.

    Attributes:
        spikes: Number of spikes in each step of each image, int64 [T, B].
        neurons: Number of neurons, N.
        each: Spikes of every neuron over all steps and images, int64 [*N]; None if not counted.
    """

    spikes: Tensor
    neurons: int
    each: Tensor | None = None


class SpikeCounts(Mapping[str, LayerSpikes]):
    """Counts of the last forward pass by layer name, in network order."""

    def __init__(self) -> None:
        self._read: dict[str, Callable[[], LayerSpikes | None]] = {}

    def __getitem__(self, name: str) -> LayerSpikes:
        found = self._read[name]()
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name, read in self._read.items() if read() is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@contextmanager
def count_spikes(model: nn.Module, *, each_neuron: bool = False) -> Iterator[SpikeCounts]:
    """Count the spikes of every spiking layer, as fast as a forward pass.

    The fused kernels stay in use. The counts are those of the last forward pass, and stay readable
    after the block. A foreign network must have been called once before.

    Args:
        model: A network with spiking layers, own or foreign.
        each_neuron: Also count the spikes of every neuron; average pooling is then computed apart
            from the neuron before it.

    Example:
        >>> with count_spikes(model) as counts, torch.no_grad():       # doctest: +SKIP
        ...     logits = model(x)
        >>> counts["features.2"].spikes.sum(0)                         # doctest: +SKIP
        tensor([2310, 1874, 2051])
    """
    counts, handles = SpikeCounts(), []
    tallies: list[_Tally] = []
    for name, module in model.named_modules():
        if isinstance(module, Neuron):
            tallies.append(_Tally(each_neuron))
            counts._read[name] = tallies[-1].total
            handles.append(module.register_forward_hook(tallies[-1]))
        elif hasattr(module, "spiking_layers"):  # as HasSpikingLayers, whose check is slow
            prefix = f"{name}." if name else ""
            for inner, layer in module.spiking_layers().items():
                if isinstance(layer, ForeignNeuron):
                    tallies.append(_ForeignTally(each_neuron, layer, int(getattr(module, "T", 1))))
                    counts._read[prefix + inner] = tallies[-1].total
                    handles.append(layer.module.register_forward_hook(tallies[-1]))
    handles.append(model.register_forward_pre_hook(_Restart(tallies)))
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def joined_spikes(passes: Sequence[Mapping[str, LayerSpikes]]) -> dict[str, LayerSpikes]:
    """Return the counts of several passes over different images as those of one pass."""
    found = {}
    for name in passes[0]:
        layers = [each[name] for each in passes]
        each = [layer.each for layer in layers if layer.each is not None]
        found[name] = LayerSpikes(
            torch.cat([layer.spikes for layer in layers], dim=1),
            layers[0].neurons,
            torch.stack(each).sum(0) if each else None,
        )
    return found


class _Restart(Reader):
    """Hook that forgets the previous pass of the network."""

    def __init__(self, tallies: list[_Tally]):
        self.tallies = tallies

    def __call__(self, module: nn.Module, given: Any) -> None:
        for tally in self.tallies:
            tally.calls.clear()


class _Tally(Reader):
    """Hook that counts the output of a neuron [T, B, *N]."""

    def __init__(self, unpooled: bool):
        self.unpooled = unpooled
        self.calls: list[LayerSpikes] = []

    def __call__(self, module: nn.Module, given: Any, out: Any) -> None:
        assert isinstance(module, Neuron)
        window = module._window  # the output is means over these rows and columns
        if window is None:
            found = _counted(out.detach(), are_spikes(out), self.unpooled)
        else:
            found = _counted_in_windows(out.detach(), math.prod(window))
        self.calls.append(found)

    def total(self) -> LayerSpikes | None:
        """Return the counts of the pass; a neuron that is called twice counts as two."""
        if not self.calls:
            return None
        each = [call.each for call in self.calls if call.each is not None]
        return LayerSpikes(
            torch.stack([call.spikes for call in self.calls]).sum(0),
            sum(call.neurons for call in self.calls),
            torch.cat([part.flatten() for part in each])
            if len(each) > 1
            else next(iter(each), None),
        )


class _ForeignTally(_Tally):
    """Hook on a foreign layer, which is called once for all steps or once for each."""

    def __init__(self, unpooled: bool, layer: ForeignNeuron, T: int):
        super().__init__(unpooled)
        self.layer, self.T = layer, T

    def __call__(self, module: nn.Module, given: Any, out: Any) -> None:
        spikes = taken(out, 0).detach()
        if self.layer.framework.multistep(module):
            shaped = over_time(self.layer, [spikes], self.T)
        else:
            shaped = spikes.unsqueeze(0)
        self.calls.append(_counted(shaped, False, self.unpooled))

    def total(self) -> LayerSpikes | None:
        """Return the counts of the pass, its calls as steps unless one call is all steps."""
        if not self.calls:
            return None
        each = [call.each for call in self.calls if call.each is not None]
        return LayerSpikes(
            torch.cat([call.spikes for call in self.calls]),
            self.calls[0].neurons,
            torch.stack(each).sum(0) if each else None,
        )


def _counted(out: Tensor, binary: bool, each_neuron: bool) -> LayerSpikes:
    """Count the entries of [T, B, *N] that are not 0."""
    shape = out.shape[2:]
    last = out.ndim == 5 and Layout.of(out).channels_last
    rows = (out.permute(0, 1, 3, 4, 2) if last else out).reshape(*out.shape[:2], math.prod(shape))
    if not binary:
        rows = torch.ne(rows, 0, out=torch.empty_like(rows))
    kind = _exact(rows.dtype, rows.shape[2])
    each = None
    if each_neuron:
        each = rows.flatten(0, 1).sum(0, dtype=kind).long()
        if last:
            each = each.view(*shape[1:], shape[0]).permute(2, 0, 1)
        each = each.reshape(shape)
    return LayerSpikes(rows.sum(2, dtype=kind).long(), rows.shape[2], each)


def _counted_in_windows(means: Tensor, area: int) -> LayerSpikes:
    """Count the spikes behind means [T, B, C, h, w] over windows of ``area`` entries each."""
    size = area * math.prod(means.shape[2:])
    kind = _exact(means.dtype, size)
    axes = tuple(range(2, means.ndim))
    if area & (area - 1) or kind != means.dtype:  # a mean may be rounded
        found = (means.to(kind) * area).round_().sum(axes)
    else:
        found = means.sum(axes) * area
    return LayerSpikes(found.long(), size)


def _exact(dtype: torch.dtype, largest: int) -> torch.dtype:
    """Return a type, at least ``dtype``, in which whole numbers up to ``largest`` are exact."""
    exact = torch.float64 if largest > EXACT else torch.float32
    return dtype if dtype.itemsize >= exact.itemsize else exact
