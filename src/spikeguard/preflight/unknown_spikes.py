"""Find layers that emit spikes but are no known spiking layer: their surrogate stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.models.adapters.presentation import taken
from spikeguard.neurons.modes import spiking_layers

__all__ = ["OUT_OF_REACH", "unknown_spikes"]

OUT_OF_REACH = (
    "{} emits spikes but is no known spiking layer, so attacks that exchange surrogates leave its "
    "derivative as it is"
)


@dataclass
class _Seen:
    """What a module returned in all calls of the block."""

    zero: bool = False
    one: bool = False
    other: bool = False

    @property
    def spikes(self) -> bool:
        return self.zero and self.one and not self.other


@contextmanager
def unknown_spikes(model: nn.Module) -> Iterator[list[str]]:
    """Collect the layers that emit spikes in the passes inside the block and are not known.

    Such a layer turns values other than 0 and 1 into zeros and ones, and
    ``spikeguard.neurons.spiking_layers`` does not list it: ``SwapSurrogate``, ``ASSG`` and the
    gradients with a known recurrence cannot change how it is differentiated.

    Yields:
        A list that holds the names and types of these layers after the block, in network order.
    """
    known = {_module(layer) for layer in spiking_layers(model).values()}
    inside = {part for layer in known for part in layer.modules()}
    watched = {
        name: module
        for name, module in model.named_modules()
        if module not in inside and not type(module).__module__.startswith("spikeguard.")
    }
    seen = {name: _Seen() for name in watched}
    handles = []
    for name, module in watched.items():

        def look(_: nn.Module, given: tuple[Any, ...], result: Any, name: str = name) -> None:
            _look(seen[name], given, result)

        handles.append(module.register_forward_hook(look))
    found: list[str] = []
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name in watched if seen[name].spikes]
    for name in names:
        holds = set(watched[name].modules())
        if not holds & known and not any(watched[n] in holds for n in names if n != name):
            found.append(f"{name or 'the model'} ({type(watched[name]).__name__})")


def _look(seen: _Seen, given: tuple[Any, ...], result: Any) -> None:
    """Note which values one call returned; what maps zeros and ones is no spiking layer."""
    try:
        out = taken(result, 0)
    except (ValueError, RuntimeError, TypeError):  # returns no tensor
        seen.other = True
        return
    current = given[0] if given and isinstance(given[0], Tensor) else None
    if current is not None and not bool(current.any()):
        return  # zeros tell nothing
    if current is None or not out.is_floating_point() or _binary(current):
        seen.other = True
        return
    seen.zero |= bool((out == 0).any())
    seen.one |= bool((out == 1).any())
    seen.other |= not _binary(out)


def _binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _module(layer: Any) -> nn.Module:
    found: nn.Module = layer.module if isinstance(layer, ForeignNeuron) else layer
    return found
