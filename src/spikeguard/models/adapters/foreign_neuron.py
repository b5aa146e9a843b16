"""A foreign spiking layer with the interface of a SpikeGuard neuron: surrogate and trace."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.models.adapters.frameworks.base import Framework
from spikeguard.models.adapters.frameworks.dynamics import Dynamics
from spikeguard.models.adapters.frameworks.surrogate import Native
from spikeguard.models.adapters.step_counts import Layout
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.neurons.trace import LayerTrace

__all__ = ["ForeignError", "ForeignNeuron"]

_NEAR = 1e-4  # potentials this close to v_th, in units of v_th, may round to either side


class ForeignError(RuntimeError):
    """Potentials cannot be recorded, or a surrogate cannot be exchanged."""


@dataclass(eq=False)
class ForeignNeuron:
    """A foreign spiking layer with the interface of a SpikeGuard neuron.

    Attributes:
        name: Name of the layer, for messages.
        module: The layer.
        framework: Its framework.
        layout: Where time is in its tensors, if it takes all steps in one call; None until the
            network was called, or if it is not known.
    """

    name: str
    module: nn.Module
    framework: Framework
    layout: Layout | None = None
    _chosen: Surrogate | None = None
    _recorders: list[Any] = field(default_factory=list)

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate of its backward pass; assign to exchange it.

        Raises:
            ForeignError: On assignment, if the surrogate of the layer cannot be exchanged.
        """
        if self._chosen is not None:
            return self._chosen
        site = self.framework.site(self.module)
        if site is None:
            return Native(f"{type(self.module).__name__}, fixed", lambda x: (x >= 0).to(x.dtype))
        return site.native()

    @surrogate.setter
    def surrogate(self, surrogate: Surrogate) -> None:
        if surrogate == self.surrogate:
            return
        site = self.framework.site(self.module)
        if site is None:
            raise ForeignError(
                f"foreign: the surrogate of {self.name} ({type(self.module).__name__}) cannot be "
                "exchanged; attack with Backprop(), for example with suite 'papers'."
            )
        self._chosen = None if surrogate == site.native() else surrogate

    @property
    def exchanged(self) -> bool:
        """Whether a surrogate other than the framework's own is set."""
        return self._chosen is not None

    def install(self) -> None:
        """Put the chosen surrogate into the layer, for one call."""
        site = self.framework.site(self.module)
        assert site is not None and self._chosen is not None
        site.install(self._chosen)

    @property
    def known(self) -> bool:
        """Whether its recurrence is known, so that its potentials can be recorded."""
        try:
            self.recurrence()
        except (ForeignError, TypeError):
            return False
        return True

    def recurrence(self) -> Dynamics:
        """Return the recurrence of its membrane.

        Raises:
            ForeignError: If it is not known.
        """
        try:
            return self.framework.dynamics(self.module)
        except ValueError as error:
            raise ForeignError(f"{self._who}: {error}") from error

    @property
    def _who(self) -> str:
        return f"record: {self.name} ({type(self.module).__name__})"

    def described(self) -> dict[str, str | None]:
        """Return its properties as text; None where a property is not known.

        "reset" is "hard" or "soft"; "surrogate" names that of its backward pass; "fires" is
        "v >= v_th" or "v > v_th", depending on its spike function at the threshold.
        """
        try:
            reset: str | None = self.framework.dynamics(self.module).reset
        except (ValueError, TypeError):  # a type that cannot be recorded
            reset = None
        return {"reset": reset, "surrogate": self._label(), "fires": self._fires()}

    def _label(self) -> str | None:
        try:
            own = self.surrogate
        except (ValueError, RuntimeError):  # not readable: it has one parameter per neuron
            return None
        label = own.label if isinstance(own, Native) and own.factor == 1 else str(own)
        return re.sub(
            r" at 0x[0-9a-f]+", "", label
        )  # address of a function: differs between processes

    def _fires(self) -> str | None:
        site = self.framework.site(self.module)
        if site is None:
            return None
        try:
            with torch.no_grad():
                at = float(site.native().spike(torch.zeros(1)))
        except (ValueError, RuntimeError):  # not readable, or only for inputs of its own shape
            return None
        return {0.0: "v > v_th", 1.0: "v >= v_th"}.get(at)

    def trace(self, current: Tensor, spikes: Tensor) -> LayerTrace:
        """Return the trace of the layer from its input current and its spikes, [T, B, *N] each.

        Raises:
            ForeignError: If its recurrence is not known, or does not produce these spikes.
        """
        who, known = self._who, self.recurrence()
        if current.shape != spikes.shape:
            raise ForeignError(
                f"{who}: takes {list(current.shape)} and gives {list(spikes.shape)}, not one spike "
                "for every input; its potentials cannot be recorded."
            )
        fed_back = spikes.detach() if known.detach_reset else spikes
        v = known.potentials(current, fed_back)
        clear = ((v - known.v_th).abs() > _NEAR * known.v_th).detach()
        wrong = float((clear & ((v >= known.v_th) != (spikes > 0.5))).double().mean())
        if wrong or not bool(((spikes == 0) | (spikes == 1)).all()):
            raise ForeignError(
                f"{who}: the recurrence of its type gives other spikes than the layer did "
                f"({100 * wrong:.2g} % of them); its potentials cannot be recorded."
            )
        return LayerTrace(
            current, v, spikes, None, known.v_th, self.surrogate, known.reset, known.detach_reset
        )
