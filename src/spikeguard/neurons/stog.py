"""StoG: a LIF neuron with a random gate on its spikes, open with a learned probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from spikeguard.kernels.reference import Reset
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.parameters import per_neuron, require_decay, require_neurons
from spikeguard.neurons.spike_marks import mark_spikes
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.rng import RandomSource

__all__ = ["StoG"]

_LOWEST = 0.1  # lower bound of the probability that a gate is open


class StoG(Neuron):
    r"""LIF with stochastic gates: a spike passes with probability p.

    .. math::
        o[t] = m[t]\,s[t], \quad m[t] \sim \mathrm{Bernoulli}(q), \quad q = \min(\max(p, 0.1), 1)

    s are the spikes of a LIF neuron, whose reset does not depend on the gate; p is learned, one
    value per neuron. Every call, step, sample and neuron has its own draw, in training, in attacks
    and in testing, from the source that ``randomness(model, source)`` binds. The gradient of m with
    respect to q is that of the Concrete relaxation of the same draw U ~ U[0, 1),

    .. math::
        m = H(U - (1 - q)), \quad \frac{dm}{dq} := \frac{\sigma(z)\,\sigma(-z)}{\tau\,q\,(1 - q)},
        \quad z = \frac{1}{\tau}\left(\log\frac{q}{1-q} + \log\frac{U}{1-U}\right)

    which is positive, and 0 at q = 1 (its limit there): only the prior,
    ``spikeguard.defences.GatePrior``, changes the p of an open gate. The public code has the
    opposite sign. Weight decay is not applied to p. ``record`` records the spikes before the gate.
    With ``averaged`` set, every gate is its mean q, and nothing is drawn.

    Args:
        decay: Leak factor per time step, in (0, 1]; the public code's default is 1.
        p: Initial probability, in [0.1, 1].
        shape: Shape of p, for example (C, H, W) for one value per neuron; an axis of length 1 is
            shared, () is one p for all. None: the network sets the shape of each layer.
        temperature: tau of the relaxation, in (0, 1).
        v_th: Firing threshold, in membrane units, > 0.
        surrogate: Used instead of H' in the backward pass only.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" or "soft".

    Raises:
        ValueError: If an argument is outside its range; at a call, if the shape is not set or the
            current has another shape.

    Source: Ding et al., "Enhancing the robustness of spiking neural networks with stochastic gating
        mechanisms", AAAI 2024; Maddison et al., "The Concrete distribution", 2017.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("p",)
    p: nn.Parameter | None

    def __init__(
        self,
        decay: float = 1.0,
        p: float = 1.0,
        shape: Sequence[int] | None = None,
        temperature: float = 0.5,
        v_th: float = 1.0,
        *,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        reset: Reset = "hard",
    ):
        super().__init__(v_th, surrogate=surrogate, detach_reset=detach_reset, reset=reset)
        self.decay = require_decay("StoG", decay)
        if not _LOWEST <= p <= 1:
            raise ValueError(f"StoG: p is a probability in [{_LOWEST:g}, 1], got {p:g}.")
        if not 0 < temperature < 1:
            raise ValueError(f"StoG: temperature must be inside (0, 1), got {temperature:g}.")
        self.start = float(p)
        self.temperature = float(temperature)
        self.random = RandomSource()
        self.averaged = False
        self.register_parameter("p", None)
        if shape is not None:
            self.settle(shape)

    @classmethod
    def example(cls, **options: Any) -> Self:
        """Return an instance with random gates, for the contract tests; by default all are open."""
        return cls(p=0.7, shape=(), **options)

    @property
    def settled(self) -> bool:
        """Whether the gates exist."""
        return self.p is not None

    def settle(self, shape: Sequence[int]) -> None:
        """Create a gate for each neuron of one sample [*N]."""
        self.p = nn.Parameter(torch.full(tuple(shape), self.start))

    @property
    def stochastic(self) -> bool:
        """Whether two calls can differ: at least one gate is not always open."""
        return self.p is None or bool((self.p < 1).any())

    def forward(
        self, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Map a current [T, B, *N] to the spikes [T, B, *N] that pass the gates."""
        p = require_neurons(self, self.p, current)
        spikes = self.fire(current, decay=self.decay, T=T, norm=norm)
        open_ = per_neuron(p.clamp(_LOWEST, 1), spikes)
        if self.averaged:
            return spikes * open_.to(spikes.dtype)
        draw = self.random.uniform(spikes, dim=1)
        gate: Tensor = _Gate.apply(open_, draw, self.temperature)  # type: ignore[no-untyped-call]
        return mark_spikes(spikes * gate.to(spikes.dtype))

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        shape = "None" if self.p is None else str(tuple(self.p.shape))
        gates = f"p={self.start:g}, shape={shape}, temperature={self.temperature:g}"
        return f"decay={self.decay:g}, {gates}, {super().extra_repr()}"


class _Gate(torch.autograd.Function):
    """Forward: Bernoulli(q) from a uniform draw. Backward: the Concrete relaxation of the draw."""

    @staticmethod
    def forward(ctx, q, draw, temperature):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.temperature = temperature
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(q, draw)
        return (draw >= 1 - q).to(q.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        if not ctx.needs_input_grad[0]:
            return None, None, None
        q, draw = ctx.saved_tensors
        tau, least = ctx.temperature, 2.0**-25  # half the grid spacing of the draws
        z = (torch.logit(q) + torch.logit(draw.clamp(least, 1 - 2 * least))) / tau
        slope = torch.sigmoid(z) * torch.sigmoid(-z) / (tau * q * (1 - q).clamp_min(least))
        return (grad * slope).sum_to_size(q.shape), None, None
