"""RSC, randomised smoothing coding: the image plus fresh Gaussian noise at every time step."""

from __future__ import annotations

import math

from torch import Tensor, nn

from spikeguard.rng import RandomSource

__all__ = ["RSC"]


class RSC(nn.Module):
    r"""The input of step t is x + sigma xi[t], with an independent draw for every step and pixel.

    .. math:: x[t] = x + \sigma\,\xi[t], \qquad \xi[t] \sim N(0, 1)

    The sum is not clipped, so that the noise of a pixel has mean 0 and variance sigma^2 whatever
    its value. The gradient is exact: d x[t] / dx = 1. As with Poisson coding, which it replaces,
    the pixels are not normalised, and sigma is in input units. The draws come from the source that
    ``randomness(model, source)`` binds. With ``averaged`` set, every step is the image.

    Args:
        sigma: Standard deviation of the noise, in input units, >= 0; 0 shows the image at every
            step.

    Raises:
        ValueError: If sigma is negative or not finite.

    Source: Wu et al., "RSC-SNN: exploring the trade-off between adversarial robustness and accuracy
        in spiking neural networks via randomized smoothing coding", ACM Multimedia 2024
        (arXiv:2407.20099); its code is not public, see docs/defences/rsc.md for the readings.
    """

    constant = False
    normalised = False

    def __init__(self, sigma: float = 0.25) -> None:
        super().__init__()
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ValueError(f"RSC: sigma is a standard deviation >= 0, got {sigma:g}.")
        self.sigma = float(sigma)
        self.random = RandomSource()
        self.averaged = False

    @property
    def stochastic(self) -> bool:
        """Whether two calls on the same image differ."""
        return self.sigma > 0

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map images [B, ...] to currents [T, B, ...]."""
        steps = x.expand(T, *x.shape)
        if self.averaged or not self.stochastic:
            return steps
        return steps + self.sigma * self.random.normal(steps, dim=1).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return f"sigma={self.sigma:g}"
