"""DLIF: a leaky integrate-and-fire (LIF) neuron with one trainable gate for every time step."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from spikeguard.kernels.reference import Reset
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.parameters import require_decay
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["DLIF"]


class DLIF(Neuron):
    r"""Dynamic LIF: one trainable factor a[t] per layer and time step, 1 at the start, unbounded.

    .. math::
        v[t] = \lambda\,u[t-1] + a[t]\,I[t] \ \text{(gate="input")} \quad\text{or}\quad
        v[t] = \lambda\,a[t]\,u[t-1] + I[t] \ \text{(gate="leak")}

    The paper's formula gates the leak; its text and its public code gate the input. Both are
    implemented; the default follows the code. With all gates 1 it is a LIF neuron.

    Args:
        T: Number of time steps, >= 1, and of gates.
        gate: "input" (the public code) or "leak" (the paper's formula).
        decay: Leak factor lambda, in (0, 1].
        v_th: Firing threshold, in membrane units, > 0.
        surrogate: Used instead of H' in the backward pass only.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" or "soft".

    Raises:
        ValueError: If an argument is outside its range, or a current does not have T steps.

    Source: Ding et al., "Robust stable spiking neural networks", ICML 2024, section 3.3 (the
        equation has no number), and its public code.
    """

    returns_spikes = True

    def __init__(
        self,
        T: int,
        gate: Literal["input", "leak"] = "input",
        decay: float = 0.99,
        v_th: float = 1.0,
        *,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        reset: Reset = "hard",
    ):
        super().__init__(v_th, surrogate=surrogate, detach_reset=detach_reset, reset=reset)
        if T < 1:
            raise ValueError(f"DLIF: T must be >= 1, got {T}.")
        if gate not in ("input", "leak"):
            raise ValueError(f"DLIF: gate is 'input' or 'leak', got {gate!r}.")
        self.decay = require_decay("DLIF", decay)
        self.gate: Literal["input", "leak"] = gate
        self.a = nn.Parameter(torch.ones(T))

    def forward(
        self, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Map a current [T, *N] to spikes [T, *N]."""
        steps = len(current) if T is None else T
        if steps != len(self.a):
            raise ValueError(
                f"DLIF: built with gates for T = {len(self.a)} steps, got a current of "
                f"{steps}; pass T={steps}."
            )
        per_step = self.a.view(-1, *[1] * (current.ndim - 1))
        if self.gate == "leak":
            return self.fire(current, decay=self.decay * per_step, T=T, norm=norm)
        return self.fire(current, decay=self.decay, gate=per_step, T=T, norm=norm)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return f"T={len(self.a)}, gate={self.gate!r}, decay={self.decay:g}, {super().extra_repr()}"
