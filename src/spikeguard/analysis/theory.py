"""Quantities of the papers' theorems: flip probabilities, perturbation gains, gradient ratios."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "flip_probability",
    "peak_noise",
    "perturbation_bound",
    "perturbation_gain",
    "shift_flip_probability",
    "vulnerability_bound",
    "vulnerability_ratio",
]


def flip_probability(distance: Tensor, sigma: float) -> Tensor:
    r"""Return the probability that Gaussian noise of one step changes a neuron's spike.

    .. math:: P = \Phi(-|v - v_{th}| / \sigma)

    The formula holds for the potential before the noise of its own step. Noise of earlier steps is
    part of that potential.

    Args:
        distance: v - v_th before the noise, of any shape, in membrane units.
        sigma: Standard deviation of the noise, in membrane units, > 0.

    Returns:
        Probabilities in [0, 1/2], float64, of the shape of ``distance``.

    Raises:
        ValueError: If sigma is not a positive number.

    Source: TGO (arXiv:2602.20548) Theorem 1.
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"flip_probability: sigma must be a number > 0, got {sigma:g}.")
    return _normal_cdf(-distance.double().abs() / sigma)


def shift_flip_probability(distance: Tensor, shift: float, sigma: float) -> Tensor:
    r"""Return the probability that a shift of the potential changes the spike, under equal noise.

    .. math:: P = |\Phi((v + \Delta - v_{th}) / \sigma) - \Phi((v - v_{th}) / \sigma)|

    Both potentials get the same draw of the noise. P is the exact form of the change of the firing
    probability, whose first order in the shift is the published formula.

    Args:
        distance: v - v_th before shift and noise, of any shape, in membrane units.
        shift: Change of the potential, in membrane units.
        sigma: Standard deviation of the noise, in membrane units, >= 0; 0 is a neuron without
            noise, which fires at v >= v_th.

    Returns:
        Probabilities in [0, 1], float64, of the shape of ``distance``.

    Raises:
        ValueError: If sigma is negative or not finite.

    Source: TGO (arXiv:2602.20548) Eq. 16, there to first order.
    """
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise ValueError(f"shift_flip_probability: sigma must be a number >= 0, got {sigma:g}.")
    before = distance.double()
    after = before + shift
    if sigma == 0:
        return ((before >= 0) != (after >= 0)).double()
    # Both ends on the negative side: a difference of two small numbers keeps its digits there.
    flip = torch.where(before + after > 0, -1.0, 1.0)
    low, high = _normal_cdf(flip * before / sigma), _normal_cdf(flip * after / sigma)
    return (high - low).abs()


def peak_noise(distance: Tensor, shift: float) -> Tensor:
    r"""Return the noise at which a shift of the potential changes the spike most often.

    .. math:: \sigma^* = \sqrt{\frac{M^2 - m^2}{2 \ln(M / m)}}

    m and M are the smaller and the larger of :math:`|v - v_{th}|` and :math:`|v+\Delta-v_{th}|`.
    Below :math:`\sigma^*` more noise raises :func:`shift_flip_probability`, above it more noise
    lowers it. If the shift crosses the threshold, :math:`\sigma^* = 0`: any noise lowers it. For a
    small shift :math:`\sigma^*` tends to the distance.

    Args:
        distance: v - v_th before shift and noise, of any shape, in membrane units.
        shift: Change of the potential, in membrane units.

    Returns:
        Standard deviations >= 0, float64, of the shape of ``distance``.

    Source: Exact form of the condition below TGO (arXiv:2602.20548) Eq. 17.
    """
    before = distance.double()
    after = before + shift
    small, large = (
        torch.minimum(before.abs(), after.abs()),
        torch.maximum(before.abs(), after.abs()),
    )
    crossed = (before * after <= 0) & (before != after)
    # x / ln(1 + x) with x = (M / m)^2 - 1, which stays exact for a small shift
    x = (large - small) * (large + small) / small.square().clamp_min(1e-300)
    factor = torch.where(x > 0, x / torch.log1p(x).clamp_min(1e-300), 1.0)
    return torch.where(crossed, 0.0, small * factor.sqrt())


def perturbation_gain(decay: float, T: int, weight_norm: float = 1.0) -> float:
    r"""Return the largest gain of the membrane potential perturbation dynamics over T steps.

    .. math::
        \varepsilon[t] = \lambda\,\varepsilon[t-1] + W \Delta s[t], \quad \varepsilon[0] = 0, \qquad
        \max_{\Delta s} \frac{\|\varepsilon\|_2}{\|\Delta s\|_2} = \|L\|_2\,\|W\|_2

    L is the T x T matrix with :math:`\lambda^{t-s}` at t >= s, and 0 elsewhere.

    Args:
        decay: Leak factor per step, in [0, 1].
        T: Number of time steps, >= 1.
        weight_norm: Spectral norm of W, >= 0.

    Raises:
        ValueError: If an argument is out of range.

    Source: The exact gain of stable-SNN (ICML 2024) Theorem 3.1, whose printed bound is too small.
    """
    _check_gain("perturbation_gain", decay, T, weight_norm)
    steps = np.arange(T)
    lag = steps[:, None] - steps
    response = np.where(lag >= 0, float(decay) ** np.maximum(lag, 0), 0.0)
    return float(np.linalg.norm(response, 2)) * weight_norm


def perturbation_bound(decay: float, T: int, weight_norm: float = 1.0) -> float:
    r"""Return a bound of :func:`perturbation_gain` in closed form.

    .. math:: \frac{1 - \lambda^T}{1 - \lambda}\,\|W\|_2 \le \frac{\|W\|_2}{1 - \lambda}

    The bound is T times the norm of W for a decay of 1.

    Args:
        decay: Leak factor per step, in [0, 1].
        T: Number of time steps, >= 1.
        weight_norm: Spectral norm of W, >= 0.

    Raises:
        ValueError: If an argument is out of range.

    Source: Corrects stable-SNN (ICML 2024) Theorem 3.1.
    """
    _check_gain("perturbation_bound", decay, T, weight_norm)
    return math.fsum(float(decay) ** lag for lag in range(T)) * weight_norm


def vulnerability_ratio(gradient: Tensor) -> Tensor:
    r"""Return adversarial over random vulnerability of a function with this gradient.

    .. math:: \frac{\rho_{adv}}{\rho_{rand}} = \frac{3\,\|g\|_1^2}{\|g\|_2^2}

    The vulnerabilities are the maximum and the mean of :math:`(f_y(x+\delta)-f_y(x))^2` over the
    cube of half-width eps, to first order in eps.

    Args:
        gradient: Gradients of f_y with respect to the images [B, ...].

    Returns:
        Ratios [B], float64, from 3 to :func:`vulnerability_bound`; NaN for a gradient of zeros.

    Source: gradient-trail (arXiv:2509.23762) Theorem 1, after Liu et al. (arXiv:2405.20355).
    """
    rows = gradient.double().flatten(1)
    rows = rows / rows.abs().amax(1, keepdim=True)  # no underflow of the squares; 0 / 0 is NaN
    return 3 * rows.abs().sum(1).square() / rows.square().sum(1)


def vulnerability_bound(gradient: Tensor) -> Tensor:
    """Return the bound of :func:`vulnerability_ratio`: three times the number of non-zero entries.

    Args:
        gradient: Gradients of f_y with respect to the images [B, ...].

    Returns:
        Bounds [B], float64. Without a zero entry the bound is 3 n for n pixels.

    Source: gradient-trail (arXiv:2509.23762) Theorem 1.
    """
    return 3.0 * gradient.flatten(1).count_nonzero(1).double()


def _normal_cdf(z: Tensor) -> Tensor:
    """Return Phi(z), precise for z far below 0, where torch.special.ndtr returns 0."""
    tail: Tensor = torch.special.erfc(-z / math.sqrt(2))
    return 0.5 * tail


def _check_gain(name: str, decay: float, T: int, weight_norm: float) -> None:
    if not 0 <= decay <= 1:
        raise ValueError(f"{name}: decay is a factor in [0, 1], got {decay:g}.")
    if T < 1:
        raise ValueError(f"{name}: T must be >= 1, got {T}.")
    if not (weight_norm >= 0 and math.isfinite(weight_norm)):
        raise ValueError(f"{name}: weight_norm must be a number >= 0, got {weight_norm:g}.")
