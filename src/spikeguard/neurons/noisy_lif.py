"""NoisyLIF: a LIF neuron with Gaussian noise on its membrane potential, as in TGO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from spikeguard.kernels.layout import Layout
from spikeguard.kernels.mean_field import mean_field
from spikeguard.kernels.reference import Reset
from spikeguard.neurons.base import Neuron, Phase
from spikeguard.neurons.parameters import require_decay
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.rng import RandomSource

__all__ = ["NoisyLIF"]


class NoisyLIF(Neuron):
    r"""LIF with Gaussian noise on the membrane potential, which makes firing probabilistic.

    .. math::
        v[t] = \lambda\,u[t-1] + I[t] + \sigma\,\xi[t], \quad \xi[t] \sim N(0, 1)

    The noise stays in the membrane: u is computed from the noisy v. Every call, step, sample and
    neuron has its own draw, from the source that ``randomness(model, source)`` binds. With
    ``averaged`` set, a noisy layer returns the spike probabilities of its mean field instead, and
    draws nothing: see :func:`spikeguard.kernels.mean_field.mean_field`.

    Args:
        decay: Leak factor per time step, in (0, 1].
        sigma: Standard deviation of the noise, in membrane units, >= 0. The paper's "variance 0.4"
            is the default, sigma = 0.632; if its 0.4 was a deviation, pass 0.4.
        v_th: Firing threshold, in membrane units, > 0.
        noise_in: Phases with noise: any of "train", "attack" (inside an attack's search), "test".
        surrogate: Used instead of H' in the backward pass only.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" or "soft".

    Raises:
        ValueError: If sigma is negative, or a phase is unknown.

    Source: TGO (arXiv:2602.20548) Eq. 15; Gerstner et al., "Neuronal Dynamics", 2014.
    """

    returns_spikes = True

    def __init__(
        self,
        decay: float = 0.5,
        sigma: float = math.sqrt(0.4),
        v_th: float = 1.0,
        *,
        noise_in: Sequence[Phase] = ("train", "attack", "test"),
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        reset: Reset = "hard",
    ):
        super().__init__(v_th, surrogate=surrogate, detach_reset=detach_reset, reset=reset)
        self.decay = require_decay("NoisyLIF", decay)
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ValueError(f"NoisyLIF: sigma is a standard deviation >= 0, got {sigma:g}.")
        unknown = set(noise_in) - set(get_args(Phase))
        if unknown or isinstance(noise_in, str):
            raise ValueError(
                f"NoisyLIF: noise_in lists phases out of train, attack, test; got {noise_in!r}."
            )
        self.sigma = float(sigma)
        self.noise_in = tuple(noise_in)
        self.random = RandomSource()
        self.averaged = False

    @property
    def stochastic(self) -> bool:
        """Whether two calls in the current phase can differ."""
        return self.sigma > 0 and self.phase in self.noise_in

    def forward(
        self, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Map a current [T, B, *N] to spikes [T, B, *N]."""
        if self.averaged and self.stochastic:
            return mean_field(
                current,
                decay=self.decay,
                sigma=self.sigma,
                v_th=self.v_th,
                reset=self.reset,
                T=T,
                norm=norm,
                window=self._window,
            )
        noise = None
        if self.stochastic:
            steps = len(current) if T is None else T
            noise = Layout.of(current).empty(current, steps, torch.float32)
            self.random.normal_(noise, dim=min(1, current.ndim - 1)).mul_(self.sigma)
        return self.fire(current, decay=self.decay, noise=noise, T=T, norm=norm)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        noise = f"sigma={self.sigma:g}, noise_in={self.noise_in}"
        return f"decay={self.decay:g}, {noise}, {super().extra_repr()}"
