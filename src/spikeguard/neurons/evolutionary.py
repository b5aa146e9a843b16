"""EvolutionaryLIF: a LIF neuron with one trainable leak for every neuron and time step (FEEL)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spikeguard.kernels.reference import Reset
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.parameters import per_neuron, require_decay, require_neurons
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["EvolutionaryLIF"]


class EvolutionaryLIF(Neuron):
    r"""LIF whose leak factor is learned, one for each neuron and time step, and unbounded.

    .. math:: v_i[t] = \lambda_i[t]\,u_i[t-1] + I_i[t]

    The network then works only for its T and image size. The leaks are not clamped. The leak of the
    first step has no effect, because u = 0 before it. With all leaks equal it is a LIF neuron.

    Args:
        T: Number of time steps, >= 1.
        shape: Shape of the leaks of one step, for example (C, H, W) for one leak per neuron; an
            axis of length 1 is shared, () is one leak per step. None: the network sets the shape
            of each layer.
        decay: Initial leak factor, in (0, 1].
        weight_decay: Apply the optimiser's weight decay to the leaks, as the public code does;
            Eq. 12 of the paper has none, and its ablation names a variant that has.
        v_th: Firing threshold, in membrane units, > 0.
        surrogate: Used instead of H' in the backward pass only.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" or "soft".

    Raises:
        ValueError: If an argument is outside its range; at a call, if the shape is not set, or the
            current has another shape or another number of steps.

    Source: Xu et al., "FEEL-SNN: robust spiking neural networks with frequency encoding and
        evolutionary leak factor", NeurIPS 2024, Eqs. 12 to 14; the initial value is that of the
        public code.
    """

    leak: nn.Parameter | None

    def __init__(
        self,
        T: int,
        shape: Sequence[int] | None = None,
        decay: float = 1.0,
        weight_decay: bool = True,
        v_th: float = 1.0,
        *,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        reset: Reset = "hard",
    ):
        super().__init__(v_th, surrogate=surrogate, detach_reset=detach_reset, reset=reset)
        if T < 1:
            raise ValueError(f"EvolutionaryLIF: T must be >= 1, got {T}.")
        self.T = T
        self.decay = require_decay("EvolutionaryLIF", decay)
        self.weight_decay = weight_decay
        self.undecayed = () if weight_decay else ("leak",)
        self.register_parameter("leak", None)
        if shape is not None:
            self.settle(shape)

    @property
    def settled(self) -> bool:
        """Whether the leaks exist."""
        return self.leak is not None

    def settle(self, shape: Sequence[int]) -> None:
        """Create T leaks for each neuron of one sample [*N]."""
        self.leak = nn.Parameter(torch.full((self.T, *shape), self.decay))

    def forward(
        self, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Map a current [T, B, *N] to spikes [T, B, *N]."""
        steps = len(current) if T is None else T
        if steps != self.T:
            raise ValueError(
                f"EvolutionaryLIF: built with leaks for T = {self.T} steps, got a current of "
                f"{steps}; pass T={steps}."
            )
        leak = require_neurons(self, self.leak, current, steps=True)
        return self.fire(current, decay=per_neuron(leak, current, steps=True), T=T, norm=norm)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        shape = "None" if self.leak is None else str(tuple(self.leak.shape[1:]))
        leaks = f"decay={self.decay:g}, weight_decay={self.weight_decay}"
        return f"T={self.T}, shape={shape}, {leaks}, {super().extra_repr()}"
