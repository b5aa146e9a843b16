r"""Encoders convert an image to input currents: ``encoder(x [B, ...], T) -> [T, B, ...]``.

They are part of the model, so that an attack in pixel space differentiates through them. If an
encoder is random or rounds, its backward pass is straight-through: every step passes its gradient
to the pixel unchanged. Pixels x are in [0, 1].
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from spikeguard.rng import RandomSource

__all__ = [
    "Direct",
    "Encoder",
    "Phase",
    "Poisson",
    "Quantised",
]


class Encoder(Protocol):
    """The interface of an encoder.

    Attributes:
        constant: All steps are equal. The model then requests one step, and the layers before its
            first neuron run once instead of T times.
        normalised: The image is normalised (mean, std) before it is encoded. False for encoders
            that use pixels as probabilities or bits.

    An encoder of other inputs than pixels in [0, 1] has a further attribute ``space``, an
    :class:`~spikeguard.encoders.input_space.InputSpace`.
    """

    constant: bool
    normalised: bool

    def __call__(self, x: Tensor, T: int) -> Tensor:
        """Return the input currents [T, B, ...]."""


class Direct(nn.Module):
    """Direct coding: the (normalised) image is the input at every step.

    Source: Rathi and Roy, "DIET-SNN", 2020; the input of nearly all directly trained SNNs.
    """

    constant = True
    normalised = True

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map [B, ...] to [T, B, ...] without copying."""
        return x.expand(T, *x.shape)


class Poisson(nn.Module):
    r"""Spike at each step with probability x (Bernoulli); straight-through: d spike / dx = 1.

    The draws come from the source that ``randomness(model, source)`` binds. With ``averaged`` set,
    every step is the mean of the spikes, the rescaled pixel.

    Args:
        signed: Rescale the pixel to r = 2 x - 1 in [-1, 1] and emit a spike with the sign of r and
            probability \|r\|, so that its mean is r; straight-through: d spike / dr = 1.

    Source: Sharmin et al., "Inherent adversarial robustness of deep SNNs", ECCV 2020, with signed
        spikes.
    """

    constant = False
    normalised = False
    stochastic = True

    def __init__(self, signed: bool = False) -> None:
        super().__init__()
        self.signed = signed
        self.random = RandomSource()
        self.averaged = False

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map [B, ...] in [0, 1] to spikes [T, B, ...]."""
        rate = 2 * x - 1 if self.signed else x
        steps = rate.expand(T, *x.shape)
        if self.averaged:
            return steps
        with torch.no_grad():
            draws = self.random.uniform(steps, dim=1)
            if self.signed:
                spikes = steps.sign() * (draws < steps.abs())
            else:
                spikes = (draws < steps).to(x.dtype)
        return _straight_through(spikes, steps)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return "signed=True" if self.signed else ""


class Quantised(nn.Module):
    """Round a pixel to one of ``levels`` equidistant values in [0, 1], the input at every step.

    q = round(x (levels - 1)) / (levels - 1), x clamped to [0, 1]; the backward pass uses
    d q / dx = 1. The true slope of q is 0, so a gradient-based attack optimises another function
    than the network's: test such a network with gradient-free attacks too.

    Args:
        levels: Number of values, 2 to 256. 256 does not change the pixels of stored images.

    Raises:
        ValueError: If levels is outside 2 to 256.

    Source: Panda et al., "Discretization based solutions for secure machine learning against
        adversarial attacks", 2019, arXiv:1902.03151 (4 levels).
    """

    constant = True
    normalised = False

    def __init__(self, levels: int = 4):
        super().__init__()
        if not 2 <= levels <= 256:
            raise ValueError(f"Quantised: levels must be 2 to 256, got {levels}.")
        self.levels = levels

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map [B, ...] to [T, B, ...], all steps equal."""
        top = self.levels - 1
        with torch.no_grad():
            rounded = (x.clamp(0, 1) * top).round() / top
        code = _straight_through(rounded, x)
        return code.expand(T, *x.shape)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return f"levels={self.levels}"


class Phase(nn.Module):
    r"""Phase coding: the bits of a pixel, one per step, most significant first, period K.

    The pixel, clamped to [0, 1], is rounded to q = round(x (2^K - 1)), which is the stored byte for
    K = 8. Step t is bit b[t mod K]; with ``weighted`` it is multiplied by
    omega(t) = 2^-(1 + t mod K), so that one period sums to q / 2^K. The backward pass uses
    d b / dx = 1.

    Args:
        bits: Bits K per pixel, 1 to 16.
        weighted: Multiply bit t by omega(t), as the formula does; the public code does not.

    Raises:
        ValueError: If bits is outside 1 to 16.

    Source: Kim et al., "Deep neural networks with weighted spikes", 2018; used so in
    arXiv:2509.23762.
    """

    constant = False
    normalised = False

    def __init__(self, bits: int = 8, weighted: bool = False):
        super().__init__()
        if not 1 <= bits <= 16:
            raise ValueError(f"Phase: bits must be 1 to 16, got {bits}.")
        self.bits = bits
        self.weighted = weighted

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map [B, ...] in [0, 1] to bits [T, B, ...]."""
        place = torch.arange(T, device=x.device).remainder(self.bits).view(-1, *[1] * x.ndim)
        with torch.no_grad():
            level = (x.clamp(0, 1) * (2**self.bits - 1)).round().to(torch.int64)
            bit = ((level >> (self.bits - 1 - place)) & 1).to(x.dtype)
        code = _straight_through(bit, x.expand(T, *x.shape))
        return code * (2.0 ** -(1.0 + place)).to(code.dtype) if self.weighted else code

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return f"bits={self.bits}, weighted={self.weighted}"


def _straight_through(value: Tensor, slope: Tensor) -> Tensor:
    """Return ``value`` exactly, with the gradient of ``slope``."""
    replaced: Tensor = _Replace.apply(value, slope)  # type: ignore[no-untyped-call]
    return replaced


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, slope):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return value.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return None, grad
