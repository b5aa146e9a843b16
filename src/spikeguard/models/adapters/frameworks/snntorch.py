"""snnTorch 1.0: states are attributes of the neurons; the surrogate is ``spike_grad``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.kernels.reference import Reset
from spikeguard.models.adapters.frameworks.base import Framework, Site, from_package
from spikeguard.models.adapters.frameworks.dynamics import Dynamics, one_number
from spikeguard.models.adapters.frameworks.surrogate import Native, exchanged
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["FRAMEWORK"]

_SLOT = "spike_grad"
_SEQUENCE = {"StateLeaky", "LeakyParallel", "LinearLeaky", "LeakyKernel", "LeakyUnroll"}


@dataclass(frozen=True)
class _Site:
    module: nn.Module

    def native(self) -> Native:
        own: Any = getattr(self.module, _SLOT)
        name = str(getattr(own, "__qualname__", type(own).__name__)).partition(".")[0]
        width = Native(name, own).half_width
        return Native(f"snnTorch {name}, half-width {width:.4g}", own)

    def install(self, surrogate: Surrogate) -> None:
        own: Any = getattr(self.module, _SLOT)
        modules: dict[str, Any] = self.module._modules
        place = modules if _SLOT in modules else vars(self.module)
        place[_SLOT] = partial(exchanged, spike=own, surrogate=surrogate)


class _SnnTorch:
    def owns(self, module: nn.Module) -> bool:
        return from_package(module, "snntorch", "SpikingNeuron", *_SEQUENCE)

    def reset(self, module: nn.Module) -> None:
        """Set the states of one neuron to zero; snnTorch's reset of a network misses some."""
        if callable(getattr(module, "reset_mem", None)):
            module.reset_mem()  # type: ignore[operator]
        for name in ("mem", "syn", "spk", "syn_exc", "syn_inh"):
            state = getattr(module, name, None)
            if isinstance(state, Tensor):
                setattr(module, name, torch.zeros_like(state))

    def open(self, module: nn.Module) -> None:
        """Do nothing: it is differentiable in evaluation mode."""

    def multistep(self, module: nn.Module) -> bool:
        return any(each.__name__ in _SEQUENCE for each in type(module).__mro__)

    def watch(self, module: nn.Module, decide: Callable[[], None]) -> None:
        """Do nothing: time is always the first axis."""

    def spikes(self, module: nn.Module) -> bool:
        return True

    def site(self, module: nn.Module) -> Site | None:
        return _Site(module) if callable(getattr(module, _SLOT, None)) else None

    def dynamics(self, module: Any) -> Dynamics:
        """Return the recurrence of Leaky: its reset acts one step later and is always detached.

        With "subtract" the threshold is subtracted after the leak.
        """
        if type(module).__name__ != "Leaky":
            raise ValueError("only Leaky can be recorded.")
        how = module.reset_mechanism
        if how == "none" or not module.reset_delay or module.inhibition or module.state_quant:
            raise ValueError(
                "only Leaky with reset 'subtract' or 'zero', the delayed reset of the default, and "
                "neither inhibition nor quantised states can be recorded."
            )
        v_th = one_number("threshold", module.threshold)
        beta = module.beta.clamp(0, 1)

        def potentials(current: Tensor, spikes: Tensor) -> Tensor:
            found = [current[0]]
            for drive, s in zip(current[1:], spikes[:-1], strict=True):
                v = found[-1]
                kept = beta * ((1 - s) * v) if how == "zero" else beta * v - s * v_th
                found.append(kept + drive)
            return torch.stack(found)

        reset: Reset = "hard" if how == "zero" else "soft"
        decay = beta if beta.ndim == 0 else beta[None, None]
        return Dynamics(v_th, reset, True, potentials, decay)


FRAMEWORK: Framework = _SnnTorch()
