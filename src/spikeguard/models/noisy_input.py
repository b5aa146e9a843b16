"""NoisyInput: a network behind Gaussian noise on its input, the base of a smoothed classifier."""

from __future__ import annotations

import math

from torch import Tensor, nn

from spikeguard.encoders.input_space import InputSpace, space_of
from spikeguard.rng import RandomSource

__all__ = ["NoisyInput"]


class NoisyInput(nn.Module):
    """Run a network on x + sigma N(0, 1), with a fresh draw at every call.

    The noisy input is not clipped: clipping would be part of the network. The same noise is shown
    at all time steps. The network is held, not copied.

    Args:
        network: A classifier, ``network(x [B, ...]) -> logits [B, K]``.
        sigma: Standard deviation, in input units, >= 0; 0 is the network itself.

    Raises:
        ValueError: If sigma is negative or not finite.
    """

    def __init__(self, network: nn.Module, sigma: float) -> None:
        super().__init__()
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ValueError(f"NoisyInput: sigma is a standard deviation >= 0, got {sigma:g}.")
        self.network = network
        self.sigma = float(sigma)
        self.random = RandomSource()

    @property
    def stochastic(self) -> bool:
        """Whether two calls on the same input differ, whatever the network draws."""
        return self.sigma > 0

    @property
    def input_space(self) -> InputSpace:
        """The inputs that the network takes."""
        return space_of(self.network)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [B, ...] to logits [B, K]."""
        if self.sigma > 0:
            x = x + self.sigma * self.random.normal(x, dim=0).to(x.dtype)
        logits: Tensor = self.network(x)
        return logits
