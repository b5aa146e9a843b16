"""Context managers for all spiking layers of a model: record them, change their backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from torch import nn

from spikeguard.neurons.base import Neuron
from spikeguard.neurons.custom_backward import Analogue, BackwardRule
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.neurons.trace import Recorder, SpikingLayer, Trace
from spikeguard.system.swapping import restored, swapped

__all__ = [
    "HasSpikingLayers",
    "backward_mode",
    "backward_rule",
    "record",
    "spiking_layers",
    "under_attack",
]


@runtime_checkable
class HasSpikingLayers(Protocol):
    """A module that contains spiking layers which are not a :class:`Neuron`."""

    def spiking_layers(self) -> Mapping[str, SpikingLayer]:
        """Return these layers by their names inside the module, in network order."""


def spiking_layers(model: nn.Module) -> dict[str, SpikingLayer]:
    """Return all spiking layers by name, in network order, those of other frameworks included."""
    found: dict[str, SpikingLayer] = {}
    for name, module in model.named_modules():
        if isinstance(module, Neuron):
            found[name] = module
        elif isinstance(module, HasSpikingLayers):
            prefix = f"{name}." if name else ""
            found |= {prefix + inner: layer for inner, layer in module.spiking_layers().items()}
    return found


@contextmanager
def record(model: nn.Module) -> Iterator[Trace]:
    """Record currents, potentials and spikes of every spiking layer.

    The trace is a mapping from module names to :class:`LayerTrace`, in network order. It holds the
    last forward pass and stays readable after the block. Outside the block nothing is recorded, and
    potentials are not stored.

    Example:
        >>> with record(model) as trace:                           # doctest: +SKIP
        ...     logits = model(x)
        >>> trace["features.2"].v.shape                            # doctest: +SKIP
        torch.Size([4, 128, 64, 32, 32])
    """
    recorder = Recorder(spiking_layers(model))
    try:
        yield recorder
    finally:
        recorder.close()


@contextmanager
def backward_mode(
    model: nn.Module, surrogate: Surrogate | float | Mapping[str, Surrogate]
) -> Iterator[None]:
    """Differentiate every spiking layer with another surrogate inside the block.

    Args:
        model: A network with spiking layers; its forward pass does not change.
        surrogate: One surrogate for all layers, a mapping from layer names to surrogates, or a
            factor > 0 by which each layer's own surrogate is widened.

    Raises:
        ValueError: If the factor is not positive.
    """
    layers = spiking_layers(model)
    with restored(layers.values(), "surrogate"):
        for name, n in layers.items():
            if isinstance(surrogate, int | float):
                n.surrogate = n.surrogate.widened(surrogate)
            else:
                n.surrogate = surrogate[name] if isinstance(surrogate, Mapping) else surrogate
        yield


@contextmanager
def backward_rule(model: nn.Module, rule: BackwardRule | Analogue) -> Iterator[None]:
    """Differentiate every spiking layer with a rule inside the block, instead of its surrogate.

    Args:
        model: A network with spiking layers. Its forward pass does not change, unless the rule is
            an ``Analogue``. Recorded potentials carry no gradient inside the block, and decays and
            gates get none.
        rule: Prescribes the slope ds/dv of one forward pass of one layer.
    """
    with swapped(_neurons(model), "rule", rule):
        yield


@contextmanager
def under_attack(model: nn.Module) -> Iterator[None]:
    """Set the phase of every spiking layer to "attack" (NoisyLIF can switch its noise off)."""
    with swapped(_neurons(model), "attacked", True):
        yield


def _neurons(model: nn.Module) -> list[Neuron]:
    return [m for m in model.modules() if isinstance(m, Neuron)]
