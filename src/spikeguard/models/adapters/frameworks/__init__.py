"""Supported foreign frameworks: how their neurons, states and surrogates are handled."""

from __future__ import annotations

from spikeguard.models.adapters.frameworks import norse, snntorch, spikingjelly, stateless
from spikeguard.models.adapters.frameworks.base import Framework

__all__ = ["FRAMEWORKS", "Framework"]

FRAMEWORKS: dict[str, Framework] = {
    "spikingjelly": spikingjelly.FRAMEWORK,
    "snntorch": snntorch.FRAMEWORK,
    "norse": norse.FRAMEWORK,
    "stateless": stateless.FRAMEWORK,
}
