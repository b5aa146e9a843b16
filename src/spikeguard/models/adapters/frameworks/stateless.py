"""Networks in the style of papers' code: ``model(x)`` loops over T inside and keeps no state.

Their neuron is usually a module with a threshold ``thresh``, a leak factor ``tau`` and a spike
function ``act(v - thresh, gama)``. Only the surrogate of such a module can be exchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from spikeguard.models.adapters.frameworks.base import Framework, Site
from spikeguard.models.adapters.frameworks.dynamics import Dynamics, integrated, one_number
from spikeguard.models.adapters.frameworks.surrogate import Native, exchanged
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["FRAMEWORK"]

_SLOT = "act"


@dataclass(frozen=True)
class _Site:
    module: Any

    def native(self) -> Native:
        extra = [self.module.gama] if hasattr(self.module, "gama") else []
        own = getattr(self.module, _SLOT)
        label = f"{type(self.module).__name__} act{tuple(extra) or ''}"
        return Native(label, lambda x: own(x, *extra))

    def install(self, surrogate: Surrogate) -> None:
        own = getattr(self.module, _SLOT)

        def act(x: Tensor, *extra: Any) -> Tensor:
            return exchanged(x, lambda inner: own(inner, *extra), surrogate)

        modules = self.module._modules
        place = modules if _SLOT in modules else vars(self.module)
        place[_SLOT] = act


class _Stateless:
    def owns(self, module: nn.Module) -> bool:
        return callable(getattr(module, _SLOT, None)) and hasattr(module, "thresh")

    def reset(self, module: nn.Module) -> None:
        """Do nothing: the module keeps no state."""

    def open(self, module: nn.Module) -> None:
        """Do nothing: it is differentiable in evaluation mode."""

    def multistep(self, module: nn.Module) -> bool:
        return True

    def watch(self, module: nn.Module, decide: Callable[[], None]) -> None:
        """Call ``decide`` at every call of ``act``: codes differ in their axis of time."""
        own = getattr(module, _SLOT)

        def act(*given: Any, **named: Any) -> Any:
            decide()
            return own(*given, **named)

        vars(module)[_SLOT] = act

    def spikes(self, module: nn.Module) -> bool:
        return True

    def site(self, module: nn.Module) -> Site | None:
        return _Site(module)

    def dynamics(self, module: Any) -> Dynamics:
        """Return the leaky recurrence with hard reset that is usual in such code."""
        if not hasattr(module, "tau"):
            raise ValueError("has no leak factor 'tau'; its potentials cannot be recorded.")
        v_th, tau = one_number("thresh", module.thresh), one_number("tau", module.tau)

        def charge(u: Tensor, x: Tensor) -> Tensor:
            return u * tau + x

        potentials = partial(integrated, charge=charge, v_th=v_th, reset="hard")
        return Dynamics(v_th, "hard", False, potentials, tau)


FRAMEWORK: Framework = _Stateless()
