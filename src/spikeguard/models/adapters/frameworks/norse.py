"""Norse 1.1: states are arguments, so nothing is reset; parameters name the surrogate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.models.adapters.frameworks.base import Framework, Site, from_package
from spikeguard.models.adapters.frameworks.dynamics import Dynamics, one_number
from spikeguard.models.adapters.frameworks.surrogate import Native, exchanged
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["FRAMEWORK"]

_CELLS = ("SNNCell", "SNNRecurrentCell")
_SEQUENCE = ("SNN", "SNNRecurrent")
_SLOT = "threshold"


@dataclass(frozen=True)
class _Site:
    module: Any

    def native(self) -> Native:
        step, p = self.module.activation, self.module.p
        threshold = step.__globals__[_SLOT]
        alpha = one_number("alpha", p.alpha)
        return Native(f"Norse {p.method}({alpha:g})", lambda x: threshold(x, p.method, p.alpha))

    def install(self, surrogate: Surrogate) -> None:
        """Give the layer a copy of its step function that uses the surrogate."""
        step = self.module.activation
        own = step.__globals__[_SLOT]

        def threshold(x: Tensor, method: str, alpha: Any) -> Tensor:
            return exchanged(x, lambda inner: own(inner, method, alpha), surrogate)

        names = {**step.__globals__, _SLOT: threshold}
        code, defaults = step.__code__, step.__defaults__
        vars(self.module)["activation"] = FunctionType(code, names, step.__name__, defaults)


class _Norse:
    def owns(self, module: nn.Module) -> bool:
        return from_package(module, "norse", *_CELLS, *_SEQUENCE)

    def reset(self, module: nn.Module) -> None:
        """Do nothing: the module keeps no state."""

    def open(self, module: nn.Module) -> None:
        """Do nothing: it is differentiable in evaluation mode."""

    def multistep(self, module: nn.Module) -> bool:
        return from_package(module, "norse", *_SEQUENCE)

    def watch(self, module: nn.Module, decide: Callable[[], None]) -> None:
        """Do nothing: time is always the first axis."""

    def spikes(self, module: nn.Module) -> bool:
        name = type(module).__name__
        return not (name.startswith("LI") and not name.startswith("LIF"))

    def site(self, module: Any) -> Site | None:
        """Return None for refractory and adjoint layers: their step function does not fire."""
        step = module.activation
        if not isinstance(step, FunctionType) or "refrac" in step.__name__:
            return None
        return _Site(module) if _SLOT in step.__code__.co_names else None

    def dynamics(self, module: Any) -> Dynamics:
        """Return the recurrence of LIF, LIFCell or LIFBoxCell."""
        kind = type(module).__name__
        if kind not in ("LIF", "LIFCell", "LIFBoxCell"):
            raise ValueError("only LIF, LIFCell and LIFBoxCell can be recorded.")
        p, dt = module.p, module.dt
        reset_method = getattr(p, "reset_method", None)
        if reset_method is not None and "subtract" in getattr(reset_method, "__name__", ""):
            raise ValueError("only its reset to a value can be recorded.")
        floor = one_number("v_reset", p.v_reset)
        v_th = one_number("v_th", p.v_th) - floor

        def potentials(current: Tensor, spikes: Tensor) -> Tensor:
            v = torch.zeros_like(current[0]) + p.v_leak
            i = torch.zeros_like(current[0])
            found = []
            for drive, s in zip(current, spikes, strict=True):
                i = drive if kind == "LIFBoxCell" else i + drive
                v = v + dt * p.tau_mem_inv * ((p.v_leak - v) + i)
                if kind != "LIFBoxCell":
                    i = i - dt * p.tau_syn_inv * i
                found.append(v - floor)
                v = (1 - s) * v + s * floor
            return torch.stack(found)

        rise, fall = dt * p.tau_mem_inv, dt * p.tau_syn_inv if kind != "LIFBoxCell" else 1.0
        decay, gain = (x if x.ndim == 0 else x[None, None] for x in (1 - rise, rise / fall))
        return Dynamics(v_th, "hard", False, potentials, decay, gain)


FRAMEWORK: Framework = _Norse()
