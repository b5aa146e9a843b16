r"""The mean-field recurrence of a membrane with Gaussian noise: spike probabilities, no draws.

.. math::
    v[t] &= \lambda[t]\,u[t-1] + I[t], \qquad u[-1] = 0 \\
    p[t] &= \Phi\big((v[t] - v_{th}) / \sigma\big) \\
    u[t] &= (1 - p[t])\, v[t] \ \text{(hard reset)} \quad\text{or}\quad
            v[t] - v_{th}\, p[t] \ \text{(soft)}

This is the recurrence of the kernels with the noise left out and p in the place of the spike. It is
smooth, so autograd gives its exact derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.kernels.reference import Reset, membrane_dtype, reset_potential, step

__all__ = ["mean_field"]


def mean_field(
    current: Tensor,
    *,
    decay: float | Tensor,
    sigma: float,
    v_th: float = 1.0,
    reset: Reset = "hard",
    T: int | None = None,
) -> Tensor:
    """Return the spike probabilities p [T, *N], in the dtype of ``current``.

    Args:
        current: Input current I [T, *N], floating point; or [1, *N] together with ``T``.
        decay: Leak factor: a number, a scalar tensor, or a tensor that broadcasts to [T, *N].
        sigma: Standard deviation of the noise, in membrane units, > 0.
        v_th: Threshold, in membrane units, > 0.
        reset: "hard" (u = 0 after a spike) or "soft" (v_th is subtracted).
        T: Number of steps, if ``current`` holds one step that is repeated T times.

    Raises:
        ValueError: If sigma is not positive.

    Source: the escape rate of a neuron with noisy membrane, Gerstner et al., "Neuronal Dynamics",
        2014, chapter 9; the noise is that of TGO (arXiv:2602.20548) Eq. 15.
    """
    if not sigma > 0:
        raise ValueError(
            f"mean_field: sigma must be positive, got {sigma:g}; without noise p is H."
        )
    drive = current.to(membrane_dtype(current.dtype))
    factor = torch.as_tensor(decay, dtype=drive.dtype, device=drive.device)
    u: Tensor | None = None
    found = []
    for t in range(len(current) if T is None else T):
        v = step(drive, t) if u is None else step(factor, t) * u + step(drive, t)
        p = torch.special.ndtr((v - v_th) / sigma)
        u = reset_potential(v, p, v_th, reset)
        found.append(p)
    return torch.stack(found).to(current.dtype)
