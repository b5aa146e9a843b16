"""SpikingJelly 0.0.0.0.14 and 2.x: ``surrogate_function`` is the surrogate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.kernels.reference import Reset
from spikeguard.models.adapters.frameworks.base import Framework, Site, from_package
from spikeguard.models.adapters.frameworks.dynamics import Dynamics, integrated, one_number
from spikeguard.models.adapters.frameworks.surrogate import Native, exchanged
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["FRAMEWORK"]

_SLOT = "surrogate_function"


class _Stand(nn.Module):
    """Replacement for a surrogate function, which SpikingJelly registers as a module."""

    def __init__(self, spike: Callable[[Tensor], Tensor], surrogate: Surrogate):
        super().__init__()
        self._pair = (spike, surrogate)  # a tuple, so that it is not registered as a child

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes."""
        return exchanged(x, *self._pair)


@dataclass(frozen=True)
class _Site:
    module: nn.Module

    def native(self) -> Native:
        own: Any = getattr(self.module, _SLOT)
        return Native(f"SpikingJelly {own}", own)

    def install(self, surrogate: Surrogate) -> None:
        own = getattr(self.module, _SLOT)
        place = self.module._modules if _SLOT in self.module._modules else vars(self.module)
        place[_SLOT] = _Stand(own, surrogate)
        if getattr(self.module, "backend", "torch") != "torch":
            # Other backends compute the derivative in compiled code, without this function.
            self.module.backend = "torch"  # type: ignore[assignment]


class _SpikingJelly:
    def owns(self, module: nn.Module) -> bool:
        return from_package(module, "spikingjelly", "MemoryModule")

    def reset(self, module: nn.Module) -> None:
        module.reset()  # type: ignore[operator]

    def open(self, module: nn.Module) -> None:
        """Use the training path of 0.0.0.0.14: its evaluation path has no gradient."""
        if any(name.startswith("jit_eval") for name in dir(type(module))):
            module.training = True

    def multistep(self, module: nn.Module) -> bool:
        return getattr(module, "step_mode", "s") == "m"

    def watch(self, module: nn.Module, decide: Callable[[], None]) -> None:
        """Do nothing: time is always the first axis."""

    def spikes(self, module: nn.Module) -> bool:
        return hasattr(module, _SLOT)

    def site(self, module: nn.Module) -> Site | None:
        return _Site(module) if hasattr(module, _SLOT) else None

    def dynamics(self, module: Any) -> Dynamics:
        """Return the recurrence of IFNode, LIFNode or ParametricLIFNode."""
        kind = type(module).__name__.removeprefix("Simple")
        if kind not in ("IFNode", "LIFNode", "ParametricLIFNode"):
            raise ValueError("only IFNode, LIFNode and ParametricLIFNode can be recorded.")
        rest = 0.0 if module.v_reset is None else float(module.v_reset)
        v_th = one_number("v_threshold", module.v_threshold) - rest
        reset: Reset = "soft" if module.v_reset is None else "hard"
        rate: Any = 0.0  # 1 / tau
        if kind == "LIFNode":
            rate = 1 / float(module.tau)
        elif kind == "ParametricLIFNode":
            rate = torch.sigmoid(module.w)
        gain = rate if kind != "IFNode" and module.decay_input else 1.0

        def charge(u: Tensor, x: Tensor) -> Tensor:
            v: Tensor = u - rate * u + gain * x
            return v

        def potentials(current: Tensor, spikes: Tensor) -> Tensor:
            return integrated(current, spikes, charge, v_th, reset)

        return Dynamics(v_th, reset, bool(module.detach_reset), potentials, 1 - rate, gain)


FRAMEWORK: Framework = _SpikingJelly()
