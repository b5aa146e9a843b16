"""What must be known of a framework: whose a module is, how it is reset, where surrogates sit."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from spikeguard.models.adapters.frameworks.dynamics import Dynamics
from spikeguard.models.adapters.frameworks.surrogate import Native
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["Framework", "Site", "from_package"]


class Framework(Protocol):
    """How the networks of one framework are recognised, reset and looked into."""

    def owns(self, module: nn.Module) -> bool:
        """Whether the module is a layer over time of this framework."""

    def reset(self, module: nn.Module) -> None:
        """Put a module that it owns to rest."""

    def open(self, module: nn.Module) -> None:
        """Make its forward pass differentiable in evaluation mode; undone by the caller."""

    def multistep(self, module: nn.Module) -> bool:
        """Whether the module sees all steps [T, B, ...] in one call."""

    def site(self, module: nn.Module) -> Site | None:
        """Where the surrogate of a spiking layer sits; None if it cannot be exchanged."""

    def spikes(self, module: nn.Module) -> bool:
        """Whether the module is a spiking layer (and no integrator, container or the like)."""

    def dynamics(self, module: nn.Module) -> Dynamics:
        """Return the recurrence of a spiking layer.

        Raises:
            ValueError: If it is not known; the message says what is not.
        """


class Site(Protocol):
    """The place in a module where its spike function sits."""

    def native(self) -> Native:
        """Return the framework's own."""

    def install(self, surrogate: Surrogate) -> None:
        """Exchange it; the caller keeps the module's attributes and puts them back."""


def from_package(module: nn.Module, package: str, *names: str) -> bool:
    """Whether the class of a module descends from a class of a package, or from those named."""
    return any(
        each.__module__.partition(".")[0] == package and (not names or each.__name__ in names)
        for each in type(module).__mro__
    )
