"""IF, LIF and PLIF: integrate-and-fire with no leak, a fixed leak and a learnable leak."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from spikeguard.kernels.reference import Reset
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.parameters import decay_from_tau, require_decay
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["IF", "LIF", "PLIF"]


class LIF(Neuron):
    r"""Leaky integrate-and-fire neuron.

    .. math::
        v[t] = \lambda\,u[t-1] + k\,I[t], \quad
        s[t] = H(v[t] - v_{th}), \quad u[t] = (1 - s[t])\,v[t]

    Every call starts at rest (u = 0): there is no state to reset between batches.

    With ``v_reset`` the potential rests, starts and is reset at v_reset instead of 0:

    .. math::
        v[t] = v_r + \lambda\,(u[t-1] - v_r) + k\,I[t], \quad
        u[t] = (1 - s[t])\,v[t] + s[t]\,v_r

    Args:
        decay: Leak factor lambda per time step, in (0, 1]; ``1`` is an IF neuron. Not a time
            constant: see :meth:`from_tau`.
        v_th: Firing threshold, in membrane units, > 0. The neuron fires at ``v >= v_th``.
        surrogate: Used instead of H' in the backward pass only.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" or "soft".
        input_scale: Factor k > 0 on the input current, as ``from_tau(..., decay_input=True)`` sets.
        v_reset: Potential at rest and after a hard reset, in membrane units, below v_th.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> LIF(decay=0.5)(torch.full((3, 1), 0.6)).flatten()
        tensor([0., 0., 1.])

    Source: Wu et al., "Spatio-temporal backpropagation ...", 2018, doi:10.3389/fnins.2018.00331;
        ``v_reset``: the operational-space study (Mazurek et al.), Eqs. 2 and 5.
    """

    returns_spikes = True

    def __init__(
        self,
        decay: float = 0.5,
        v_th: float = 1.0,
        *,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        reset: Reset = "hard",
        input_scale: float = 1.0,
        v_reset: float = 0.0,
    ):
        super().__init__(v_th, surrogate=surrogate, detach_reset=detach_reset, reset=reset)
        self.decay = require_decay(type(self).__name__, decay)
        if not (input_scale > 0 and math.isfinite(input_scale)):
            raise ValueError(f"LIF: input_scale must be positive, got {input_scale:g}.")
        self.input_scale = float(input_scale)
        if v_reset != 0 and reset != "hard":
            raise ValueError(f"LIF: v_reset={v_reset:g} needs reset='hard', got {reset!r}.")
        if not -math.inf < v_reset < v_th:
            raise ValueError(f"LIF: v_reset must be below v_th={v_th:g}, got {v_reset:g}.")
        self.v_reset = float(v_reset)

    @classmethod
    def from_tau(
        cls,
        tau: float,
        *,
        decay_input: bool,
        v_th: float = 1.0,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        reset: Reset = "hard",
        v_reset: float = 0.0,
    ) -> Self:
        """Build from a membrane time constant in steps: decay = 1 - 1/tau.

        Args:
            tau: Time constant, > 1.
            decay_input: Also scale the input by 1/tau, as SpikingJelly's LIFNode does by default.
            v_th: As for the constructor.
            surrogate: As for the constructor.
            detach_reset: As for the constructor.
            reset: As for the constructor.
            v_reset: As for the constructor.

        Raises:
            ValueError: If tau is not above 1.
        """
        return cls(
            decay_from_tau(tau),
            v_th,
            surrogate=surrogate,
            detach_reset=detach_reset,
            reset=reset,
            input_scale=1 / tau if decay_input else 1.0,
            v_reset=v_reset,
        )

    def forward(
        self, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Map a current [T, *N] to spikes [T, *N]."""
        if self.input_scale != 1:
            assert norm is None  # the scale is applied after the normalisation: see absorbs
            current = current * self.input_scale
        return self.fire(current, decay=self.decay, T=T, norm=norm)

    def absorbs(self, layer: nn.Module, x: Tensor) -> bool:
        """As for every neuron, but not with ``input_scale``, which is applied after ``layer``."""
        return self.input_scale == 1 and super().absorbs(layer, x)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        scale = "" if self.input_scale == 1 else f"input_scale={self.input_scale:g}, "
        at = "" if self.v_reset == 0 else f", v_reset={self.v_reset:g}"
        return f"decay={self.decay:g}, {scale}{super().extra_repr()}{at}"


class IF(Neuron):
    """Integrate-and-fire neuron: LIF without a leak (decay 1).

    Args:
        v_th: Firing threshold, in membrane units, > 0.
        surrogate: Used instead of H' in the backward pass only.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" or "soft".
    """

    returns_spikes = True

    def forward(
        self, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Map a current [T, *N] to spikes [T, *N]."""
        return self.fire(current, decay=1.0, T=T, norm=norm)


class PLIF(Neuron):
    r"""LIF whose leak factor is learned: lambda = sigmoid(w), one w per layer.

    Args:
        decay: Initial leak factor, in (0, 1) exclusive.
        v_th: Firing threshold, in membrane units, > 0.
        surrogate: Used instead of H' in the backward pass only.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" or "soft".

    Raises:
        ValueError: If ``decay`` is 1 (its logit is infinite) or outside (0, 1).

    Source: Fang et al., "Incorporating learnable membrane time constant ...", ICCV 2021; there
    1/tau = sigmoid(w) and the input is scaled too, here lambda = sigmoid(w) and it is not.
    """

    returns_spikes = True

    def __init__(
        self,
        decay: float = 0.5,
        v_th: float = 1.0,
        *,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        reset: Reset = "hard",
    ):
        super().__init__(v_th, surrogate=surrogate, detach_reset=detach_reset, reset=reset)
        if decay == 1:
            raise ValueError(
                "PLIF: decay starts inside (0, 1), got 1; use IF for a neuron without leak."
            )
        decay = require_decay("PLIF", decay)
        self.decay_logit = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))

    @property
    def decay(self) -> Tensor:
        """The leak factor, a scalar tensor in (0, 1)."""
        return torch.sigmoid(self.decay_logit)

    def forward(
        self, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Map a current [T, *N] to spikes [T, *N]."""
        return self.fire(current, decay=self.decay, T=T, norm=norm)
