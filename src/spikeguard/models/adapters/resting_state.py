"""Reset foreign layers and install the chosen surrogates, for the duration of a block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.models.adapters.frameworks.base import Framework

__all__ = ["at_rest"]


@contextmanager
def at_rest(
    layers: Collection[nn.Module], neurons: Collection[ForeignNeuron], framework: Framework
) -> Iterator[None]:
    """Reset states and install surrogates for the block; restore everything after it."""
    with _kept(layers):
        for layer in layers:
            framework.reset(layer)
            framework.open(layer)
        for neuron in neurons:
            if neuron.exchanged:
                neuron.install()
        yield


@contextmanager
def _kept(modules: Collection[nn.Module]) -> Iterator[None]:
    """Restore all attributes, states and children of the modules after the block."""
    before = [(vars(m), dict(vars(m)), _tables(m)) for m in modules]
    try:
        yield
    finally:
        for live, attributes, tables in before:
            live.clear()
            live.update(attributes)
            for name, content in tables.items():
                live[name].clear()
                live[name].update(content)


def _tables(module: nn.Module) -> Mapping[str, dict[str, Any]]:
    held = vars(module)
    return {k: dict(held[k]) for k in ("_buffers", "_modules", "_memories") if k in held}
