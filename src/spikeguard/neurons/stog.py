"""StoG: a LIF neuron whose spikes pass a random gate, open with a learned probability."""

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

_LOWEST = 0.1  # a gate is never open more rarely


class StoG(Neuron):
    r"""LIF with stochastic gates: a spike is sent on with probability p.

    .. math::
        o[t] = m[t]\,s[t], \quad m[t] \sim \mathrm{Bernoulli}(q), \quad q = \min(\max(p, 0.1), 1)

    s are the spikes of a LIF neuron, whose own reset the gate does not change; p is learned, one
    value a neuron. A gate is drawn afresh per call, step, sample and neuron, in training, in
    attacks and in testing, from the source that ``randomness(model, source)`` binds. The gradient
    of m by q is that of the Concrete relaxation of the same draw U ~ U[0, 1),

    .. math::
        m = H(U - (1 - q)), \quad \frac{dm}{dq} := \frac{\sigma(z)\,\sigma(-z)}{\tau\,q\,(1 - q)},
        \quad z = \frac{1}{\tau}\left(\log\frac{q}{1-q} + \log\frac{U}{1-U}\right)

    which is positive, and 0 at q = 1 (its limit there): an open gate is moved by the prior alone,
    ``spikeguard.defences.GatePrior``. The public code has the opposite sign. p is spared the weight
    decay. ``record`` shows the spikes before the gate.

    Args:
        decay: Leak factor per time step, in (0, 1]; the public code's default is 1.
        p: Probability at the start, in [0.1, 1].
        shape: One sample's neurons that have a p of their own, for example (C, H, W); an axis of
            length 1 shares it, () is one p for all. None: the network fills in each layer's shape.
        temperature: tau of the relaxation, in (0, 1).
        v_th: Firing threshold, in membrane units, > 0.
        surrogate: Stands in for H' in the backward pass only.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" or "soft".

    Raises:
        ValueError: If an argument is outside its range; at a call, if there is no shape yet or the
            current has another one.

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
            raise ValueError(f"StoG: temperature lies inside (0, 1), got {temperature:g}.")
        self.start = float(p)
        self.temperature = float(temperature)
        self.random = RandomSource()
        self.register_parameter("p", None)
        if shape is not None:
            self.settle(shape)

    @classmethod
    def example(cls, **options: Any) -> Self:
        """Return one whose gates are open at random; by default all of them are always open."""
        return cls(p=0.7, shape=(), **options)

    @property
    def settled(self) -> bool:
        """Whether the gates exist."""
        return self.p is not None

    def settle(self, shape: Sequence[int]) -> None:
        """Make a gate for each neuron of one sample [*N]."""
        self.p = nn.Parameter(torch.full(tuple(shape), self.start))

    @property
    def stochastic(self) -> bool:
        """Whether two calls can differ: some gate is not always open."""
        return self.p is None or bool((self.p < 1).any())

    def forward(
        self, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Map a current [T, B, *N] to the spikes [T, B, *N] that pass."""
        p = require_neurons(self, self.p, current)
        spikes = self.fire(current, decay=self.decay, T=T, norm=norm)
        open_ = per_neuron(p.clamp(_LOWEST, 1), spikes)
        draw = self.random.uniform(spikes, dim=1)
        gate: Tensor = _Gate.apply(open_, draw, self.temperature)  # type: ignore[no-untyped-call]
        return mark_spikes(spikes * gate.to(spikes.dtype))

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        shape = "None" if self.p is None else str(tuple(self.p.shape))
        gates = f"p={self.start:g}, shape={shape}, temperature={self.temperature:g}"
        return f"decay={self.decay:g}, {gates}, {super().extra_repr()}"


class _Gate(torch.autograd.Function):
    """Bernoulli(q) from a uniform draw; backward as the Concrete relaxation of that draw."""

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
        tau, least = ctx.temperature, 2.0**-25  # half the grid of the draws
        z = (torch.logit(q) + torch.logit(draw.clamp(least, 1 - 2 * least))) / tau
        slope = torch.sigmoid(z) * torch.sigmoid(-z) / (tau * q * (1 - q).clamp_min(least))
        return (grad * slope).sum_to_size(q.shape), None, None
