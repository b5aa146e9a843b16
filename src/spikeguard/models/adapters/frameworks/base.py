"""Interface of a supported framework: recognise modules, reset them, exchange surrogates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from spikeguard.models.adapters.frameworks.dynamics import Dynamics
from spikeguard.models.adapters.frameworks.surrogate import Native
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["Framework", "Site", "from_package"]


class Framework(Protocol):
    """How networks of one framework are recognised, reset and inspected."""

    def owns(self, module: nn.Module) -> bool:
        """Whether the module is a layer over time of this framework."""

    def reset(self, module: nn.Module) -> None:
        """Reset the state of a module of this framework."""

    def open(self, module: nn.Module) -> None:
        """Make its forward pass differentiable in evaluation mode; undone by the caller."""

    def multistep(self, module: nn.Module) -> bool:
        """Whether the module takes all steps [T, B, ...] in one call."""

    def watch(self, module: nn.Module, decide: Callable[[], None]) -> None:
        """Call ``decide`` whenever the module decides on spikes; undone by the caller.

        Does nothing where the axis of time in the module's tensors is known without that.
        """

    def site(self, module: nn.Module) -> Site | None:
        """Return the site of a spiking layer's surrogate; None if it cannot be exchanged."""

    def spikes(self, module: nn.Module) -> bool:
        """Whether the module is a spiking layer (not an integrator, a container or the like)."""

    def dynamics(self, module: nn.Module) -> Dynamics:
        """Return the recurrence of a spiking layer.

        Raises:
            ValueError: If it is not known; the message says why.
        """


class Site(Protocol):
    """The attribute of a module that holds its spike function."""

    def native(self) -> Native:
        """Return the framework's own surrogate."""

    def install(self, surrogate: Surrogate) -> None:
        """Exchange the surrogate; the caller saves and restores the module's attributes."""


def from_package(module: nn.Module, package: str, *names: str) -> bool:
    """Whether a module's class derives from a class of a package, or from one of those named."""
    return any(
        each.__module__.partition(".")[0] == package and (not names or each.__name__ in names)
        for each in type(module).__mro__
    )
