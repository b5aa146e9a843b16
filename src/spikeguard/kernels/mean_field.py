r"""The mean-field recurrence of a membrane with Gaussian noise: spike probabilities, no draws.

.. math::
    v[t] &= \lambda[t]\,u[t-1] + I[t], \qquad u[-1] = 0 \\
    p[t] &= \Phi\big((v[t] - v_{th}) / \sigma\big) \\
    u[t] &= (1 - p[t])\, v[t] \ \text{(hard reset)} \quad\text{or}\quad
            v[t] - v_{th}\, p[t] \ \text{(soft)}

This is the recurrence of the kernels with the noise left out and p in the place of the spike. It is
smooth, so autograd gives its exact derivative. The CPU kernel, where it is the default, computes
the probabilities and the derivative in one pass each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.kernels.dispatch import _checked_shape, _require_broadcast
from spikeguard.kernels.fused import Backend, can_fuse, fire, normalised
from spikeguard.kernels.layout import regular
from spikeguard.kernels.reference import Reset, membrane_dtype, reset_potential, step
from spikeguard.kernels.selection import _backend, default_kernel

__all__ = ["mean_field"]


def mean_field(
    current: Tensor,
    *,
    decay: float | Tensor,
    sigma: float,
    v_th: float = 1.0,
    reset: Reset = "hard",
    T: int | None = None,
    norm: nn.Module | None = None,
    window: tuple[int, int] | None = None,
) -> Tensor:
    """Return the spike probabilities p [T, *N], in the dtype of ``current``.

    Args:
        current: Input current I [T, *N], floating point; or [1, *N] together with ``T``.
        decay: Leak factor: a number, a scalar tensor, or a tensor that broadcasts to [T, *N].
        sigma: Standard deviation of the noise, in membrane units, > 0.
        v_th: Threshold, in membrane units, > 0.
        reset: "hard" (u = 0 after a spike) or "soft" (v_th is subtracted).
        T: Number of steps, if ``current`` holds one step that is repeated T times.
        norm: Batch normalisation applied to ``current`` first, as for ``integrate_and_fire``; its
            statistics are not updated.
        window: Average pooling of the probabilities, as for ``integrate_and_fire``.

    Raises:
        ValueError: If sigma is not positive, a shape does not fit, ``current`` is not floating
            point, or a window is given to another kernel than the CPU's.

    Source: the escape rate of a neuron with noisy membrane, Gerstner et al., "Neuronal Dynamics",
        2014, chapter 9; the noise is that of TGO (arXiv:2602.20548) Eq. 15.
    """
    if not sigma > 0:
        raise ValueError(
            f"mean_field: sigma must be positive, got {sigma:g}; without noise p is H."
        )
    density, dtype = _Density(float(sigma)), membrane_dtype(current.dtype)
    factor = torch.as_tensor(decay, dtype=dtype, device=current.device)
    shape = _checked_shape(current, T, "mean_field")
    _require_broadcast("decay", factor, shape, "mean_field")
    if norm is not None and not can_fuse(norm):  # its own forward, or somebody's hook
        current, norm = regular(norm(regular(current.flatten(0, 1)))).view(current.shape), None
    elif norm is not None and norm.training:
        current, norm = normalised(norm, current), None
    if default_kernel(current.device) == "cpu" and _cpu().supports(current, density):
        options = {"T": shape[0], "norm": norm, "window": window}
        fixed = (factor, None, None, float(v_th), reset, False, density)
        return fire(_cpu(), current, *fixed, potentials=False, smooth=True, **options).spikes  # type: ignore[arg-type]
    if window is not None:
        raise ValueError("mean_field: only the CPU kernel pools; leave window out.")
    drive = (current if norm is None else normalised(norm, current)).to(dtype)
    u: Tensor | None = None
    found = []
    for t in range(shape[0]):
        v = step(drive, t) if u is None else step(factor, t) * u + step(drive, t)
        p = torch.special.ndtr((v - v_th) / sigma)
        u = reset_potential(v, p, v_th, reset)
        found.append(p)
    return torch.stack(found).to(current.dtype)


@dataclass(frozen=True)
class _Density:
    """The derivative of the spike probability: a Gaussian, which the CPU kernel has compiled."""

    compiled_as: ClassVar[str] = "Gaussian"
    sigma: float


def _cpu() -> Backend:
    """Return the CPU kernel, which is imported where it is used."""
    return _backend("cpu")
