r"""Surrogate gradients: functions used instead of H', the derivative of the step function.

A surrogate is a frozen dataclass that is *called* with ``x = v - v_th`` and returns the derivative
h(x) >= 0. Each has a ``half_width``: triangular and rectangular surrogates are zero outside it; for
smooth ones it is the half-width at half maximum, so that ``widened(2)`` means the same for all.
``compiled_as`` is the name of the equal derivative in the fused kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "SURROGATES",
    "ATan",
    "Gaussian",
    "Rectangular",
    "Sigmoid",
    "StraightThrough",
    "SuperSpike",
    "Surrogate",
    "Triangular",
]


@runtime_checkable
class Surrogate(Protocol):
    """The derivative used for H'(x), x = v - v_th."""

    @property
    def half_width(self) -> float:
        """Distance from the threshold at which h becomes zero or falls to half its peak."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x), shaped like ``x``."""

    def widened(self, factor: float) -> Surrogate:
        """Return the same family with its half-width multiplied by ``factor`` > 0."""


def _positive(what: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{what} must be positive, got {value:g}.")
    return value


def _factor(value: float) -> float:
    return _positive("widened: factor", value)


@dataclass(frozen=True)
class Triangular:
    r"""h(x) = max(0, width - \|x\|) / width^2: area 1; "ZIF" in the SNN-RAT family.

    Args:
        width: Half-width in membrane units, > 0.

    Source: Deng et al., "Temporal efficient training ...", ICLR 2022; stable-snn Eq. 18.
    """

    compiled_as: ClassVar[str] = "Triangular"
    width: float = 1.0

    def __post_init__(self) -> None:
        _positive("Triangular: width", self.width)

    @property
    def half_width(self) -> float:
        """The support is (-width, width)."""
        return self.width

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x)."""
        return (self.width - x.abs()).clamp_min(0) * (1 / self.width**2)

    def widened(self, factor: float) -> Triangular:
        """Return the triangle ``factor`` times as wide, area 1."""
        return replace(self, width=self.width * _factor(factor))


@dataclass(frozen=True)
class Rectangular:
    r"""h(x) = 1 / (2 width) for \|x\| <= width, else 0: area 1.

    Args:
        width: Half-width in membrane units, > 0.

    Source: Wu et al., "Spatio-temporal backpropagation ...", 2018, doi:10.3389/fnins.2018.00331.
    """

    compiled_as: ClassVar[str] = "Rectangular"
    width: float = 0.5

    def __post_init__(self) -> None:
        _positive("Rectangular: width", self.width)

    @property
    def half_width(self) -> float:
        """The support is [-width, width]."""
        return self.width

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x)."""
        return (x.abs() <= self.width).to(x.dtype) * (0.5 / self.width)

    def widened(self, factor: float) -> Rectangular:
        """Return the rectangle ``factor`` times as wide, area 1."""
        return replace(self, width=self.width * _factor(factor))


@dataclass(frozen=True)
class ATan:
    r"""h(x) = (alpha / 2) / (1 + (pi alpha x / 2)^2): area 1.

    Args:
        alpha: Sharpness, > 0.

    Source: Fang et al., "Incorporating learnable membrane time constant ...", ICCV 2021.
    """

    compiled_as: ClassVar[str] = "ATan"
    alpha: float = 2.0

    def __post_init__(self) -> None:
        _positive("ATan: alpha", self.alpha)

    @property
    def half_width(self) -> float:
        """H falls to half its peak at 2 / (pi alpha)."""
        return 2 / (math.pi * self.alpha)

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x)."""
        return (self.alpha / 2) / (1 + (math.pi / 2 * self.alpha * x).square())

    def widened(self, factor: float) -> ATan:
        """Return the arctangent ``factor`` times as wide, area 1."""
        return replace(self, alpha=self.alpha / _factor(factor))


@dataclass(frozen=True)
class Sigmoid:
    r"""h(x) = alpha s (1 - s), s = sigmoid(alpha x): area 1.

    Args:
        alpha: Sharpness, > 0.
    """

    compiled_as: ClassVar[str] = "Sigmoid"
    alpha: float = 4.0

    def __post_init__(self) -> None:
        _positive("Sigmoid: alpha", self.alpha)

    @property
    def half_width(self) -> float:
        """H falls to half its peak at log(3 + 2 sqrt 2) / alpha."""
        return math.log(3 + 2 * math.sqrt(2)) / self.alpha

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x)."""
        s = torch.sigmoid(self.alpha * x)
        return self.alpha * s * (1 - s)

    def widened(self, factor: float) -> Sigmoid:
        """Return the sigmoid ``factor`` times as wide, area 1."""
        return replace(self, alpha=self.alpha / _factor(factor))


@dataclass(frozen=True)
class Gaussian:
    r"""h(x) = exp(-x^2 / (2 sigma^2)) / (sqrt(2 pi) sigma): area 1.

    Args:
        sigma: Standard deviation in membrane units, > 0.
    """

    compiled_as: ClassVar[str] = "Gaussian"
    sigma: float = 0.5

    def __post_init__(self) -> None:
        _positive("Gaussian: sigma", self.sigma)

    @property
    def half_width(self) -> float:
        """H falls to half its peak at sqrt(2 log 2) sigma."""
        return math.sqrt(2 * math.log(2)) * self.sigma

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x)."""
        peak = 1 / (math.sqrt(2 * math.pi) * self.sigma)
        return peak * torch.exp(-0.5 * (x / self.sigma).square())

    def widened(self, factor: float) -> Gaussian:
        """Return the Gaussian ``factor`` times as wide, area 1."""
        return replace(self, sigma=self.sigma * _factor(factor))


@dataclass(frozen=True)
class SuperSpike:
    r"""h(x) = (beta / 2) / (1 + beta \|x\|)^2: derivative of the fast sigmoid, scaled to area 1.

    Args:
        beta: Sharpness, > 0.

    Source: Zenke and Ganguli, "SuperSpike", 2018, doi:10.1162/neco_a_01086 (there the peak is 1,
    here it is beta / 2).
    """

    compiled_as: ClassVar[str] = "SuperSpike"
    beta: float = 2.0

    def __post_init__(self) -> None:
        _positive("SuperSpike: beta", self.beta)

    @property
    def half_width(self) -> float:
        """H falls to half its peak at (sqrt 2 - 1) / beta."""
        return (math.sqrt(2) - 1) / self.beta

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x)."""
        return (self.beta / 2) / (1 + self.beta * x.abs()).square()

    def widened(self, factor: float) -> SuperSpike:
        """Return the SuperSpike ``factor`` times as wide, area 1."""
        return replace(self, beta=self.beta / _factor(factor))


@dataclass(frozen=True)
class StraightThrough:
    """h(x) = 1 everywhere: the gradient passes as if the spike were the membrane potential."""

    compiled_as: ClassVar[str] = "StraightThrough"

    @property
    def half_width(self) -> float:
        """Infinite, because h never falls."""
        return math.inf

    def __call__(self, x: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(x)

    def widened(self, factor: float) -> StraightThrough:
        """Return the surrogate itself, which is infinitely wide."""
        _factor(factor)
        return self


SURROGATES = {
    "triangular": Triangular,
    "rectangular": Rectangular,
    "atan": ATan,
    "sigmoid": Sigmoid,
    "gaussian": Gaussian,
    "superspike": SuperSpike,
    "straight_through": StraightThrough,
}
