"""What SpikeGuard knows of other frameworks: their neurons, states and surrogates."""

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
