r"""Bounds of randomised smoothing: a confidence bound of a vote, and the radius that it certifies.

A smoothed classifier returns the class that a noisy network returns most often:

.. math:: g(x) = \arg\max_c\, P\bigl(f(x + \text{noise}) = c\bigr)

If the probability of its class at x is at least p > 1/2, g is constant inside a ball around x whose
radius depends on p and on the noise alone. f may be any function, and it may draw random numbers of
its own that do not depend on x, such as the noise of its neurons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, Protocol

import numpy as np

from spikeguard.system.intervals import binomial_tail

__all__ = [
    "Certificate",
    "GaussianCertificate",
    "RateCertificate",
    "clopper_pearson",
    "least_draws",
    "outvotes",
]

_GRID = 2.0**-24  # distance of the uniform numbers that spikes are drawn with
_HALVINGS = 60  # of the interval that holds a confidence bound


class Certificate(Protocol):
    """How a probability becomes a radius."""

    @property
    def norm(self) -> str:
        """Norm of the ball, a name in ``THREATS``."""

    @property
    def sigma(self) -> float:
        """Deviation of Gaussian noise in front of the network; 0 where its coding is the noise."""

    def radius(self, p: float) -> float:
        """Return the certified radius for a class of probability at least p, 0 for p <= 1/2."""


@dataclass(frozen=True)
class GaussianCertificate:
    r"""Gaussian noise on the input: an L2 radius.

    .. math:: R = \sigma\,\Phi^{-1}(p)

    RSC coding shows T noisy copies of the image. They are one observation of length T d whose mean
    moves by sqrt(T) times the perturbation, so that R = sigma / sqrt(T) Phi^-1(p).

    Args:
        deviation: Deviation sigma of the noise, in input units, > 0.
        copies: Independent draws that one pass sees: 1 in front of the network, T for RSC.
        own: Whether the network's own coding draws the noise.

    Source: Cohen et al., "Certified adversarial robustness via randomized smoothing", ICML 2019
        (arXiv:1902.02918), Theorem 1 with the bound 1 - p for the second class, as in its
        algorithm CERTIFY; the copies are SpikeGuard's own.
    """

    norm: ClassVar[str] = "l2"

    deviation: float
    copies: int = 1
    own: bool = False

    @property
    def sigma(self) -> float:
        """Deviation of the noise in front of the network."""
        return 0.0 if self.own else self.deviation

    def radius(self, p: float) -> float:
        """Return the certified L2 radius, in input units."""
        if p <= 0.5:
            return 0.0
        return self.deviation / math.sqrt(self.copies) * NormalDist().inv_cdf(min(p, 1 - 1e-16))

    def __str__(self) -> str:
        noise = f"Gaussian noise, sigma {self.deviation:.4g}"
        return f"{noise}, in its RSC coding, T = {self.copies}" if self.own else noise


@dataclass(frozen=True)
class RateCertificate:
    r"""Rate (Poisson) coding: an L1 radius.

    .. math:: R = 1 - \bigl(\tfrac32 - p\bigr)^{1/T}

    Two images that differ by delta are coded with the same uniform numbers. Their spikes then
    agree at all pixels and steps with a probability of prod_i (1 - |delta_i|)^T. For a given L1
    norm r of delta it is least where one pixel has all of it: (1 - r)^T. So the probability of a
    class changes by at most 1 - (1 - r)^T, and the class of g stays while this is below p - 1/2.
    At T = 1 that is p - 1/2. With signed coding a pixel's rate moves by twice the change of the
    pixel, so the radius is half of that.

    The spikes are drawn with uniform numbers on a grid of 2^-24, which can move the rate of each
    pixel by that much. The radius is smaller by this rounding.

    Args:
        T: Time steps, >= 1.
        pixels: Numbers in an image, >= 1.
        signed: Whether the coding is signed.

    Source: Mukhoty et al., "Certified adversarial robustness for rate encoded spiking neural
        networks", ICLR 2024: smoothing by rate coding and the L1 norm. Its public code takes
        p - 1/2 for every T, which does not hold for T > 1; the formula with T and its proof are
        SpikeGuard's own, see docs/certify.md.
    """

    norm: ClassVar[str] = "l1"
    sigma: ClassVar[float] = 0.0

    T: int
    pixels: int
    signed: bool = False

    def radius(self, p: float) -> float:
        """Return the certified L1 radius, in input units."""
        if p <= 0.5:
            return 0.0
        whole = 1 - math.pow(1.5 - min(p, 1.0), 1 / self.T)
        return max(0.0, whole - self.pixels * _GRID) / (2 if self.signed else 1)

    def __str__(self) -> str:
        return f"{'signed ' if self.signed else ''}rate coding, T = {self.T}"


def clopper_pearson(count: int, n: int, alpha: float) -> float:
    """Return a lower confidence bound of a probability that was seen ``count`` times in n draws.

    With a probability of at least 1 - alpha the bound is below the true value. It is the p for
    which ``count`` or more in n has the probability alpha: found by bisection to 2^-60 below it, of
    a probability that is computed to about 1e-10 of itself.

    Args:
        count: Successes in [0, n].
        n: Independent draws, >= 1.
        alpha: Probability of an error, in (0, 1).

    Source: Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934.
    """
    if count == 0:
        return 0.0
    if count == n:
        return float(alpha ** (1 / n))
    hits = np.arange(count, n + 1)
    logs = np.array([-math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in hits])
    logs += math.lgamma(n + 1)
    low, high = 0.0, count / n
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        tail = float(np.exp(logs + hits * math.log(p) + (n - hits) * math.log1p(-p)).sum())
        low, high = (p, high) if tail <= alpha else (low, p)
    return low


def least_draws(alpha: float) -> int:
    """Return the least number of draws that can certify a radius above 0, all with one class.

    Args:
        alpha: Probability of an error, in (0, 1).

    Example:
        >>> least_draws(0.001)
        10
    """
    n = max(1, math.floor(math.log(alpha) / math.log(0.5)))
    while clopper_pearson(n, n, alpha) <= 0.5:
        n += 1
    return n


def outvotes(first: int, second: int, alpha: float) -> bool:
    """Whether a class with ``first`` votes beats one with ``second``, wrongly at most with alpha.

    The two-sided binomial test of Cohen et al., PREDICT: the votes for the two are a fair coin's
    if both classes are equally probable.

    Args:
        first: Votes, at least ``second``.
        second: Votes.
        alpha: Probability of an error, in (0, 1).
    """
    return 2 * binomial_tail(first, first + second, 0.5) <= alpha
