"""``integrate_and_fire``: check the arguments and run the kernel that supports the call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikeguard.kernels.fused import can_fuse
from spikeguard.kernels.layout import regular
from spikeguard.kernels.multistep import multistep
from spikeguard.kernels.observation import is_observed
from spikeguard.kernels.reference import Firing, Reset, membrane_dtype
from spikeguard.kernels.selection import (
    _FUSED,
    KERNELS,
    _backend,
    _require_kernel,
    as_defined,
    default_kernel,
)
from spikeguard.kernels.surrogates import compiled_as

__all__ = ["integrate_and_fire", "averages"]


def integrate_and_fire(
    current: Tensor,
    *,
    decay: float | Tensor,
    surrogate: Callable[[Tensor], Tensor],
    v_th: float = 1.0,
    gate: Tensor | None = None,
    noise: Tensor | None = None,
    reset: Reset = "hard",
    detach_reset: bool = False,
    potentials: bool = True,
    kernel: str | None = None,
    T: int | None = None,
    norm: nn.Module | None = None,
    window: tuple[int, int] | None = None,
) -> Firing:
    r"""Integrate an input current over T steps and fire.

    .. math::
        v[t] = \lambda[t]\,u[t-1] + g[t]\,I[t] + n[t],\quad
        s[t] = H(v[t] - v_{th}),\quad u[t] = reset(v[t], s[t])

    Args:
        current: Input current I [T, *N], floating point; or [1, *N] together with ``T``. The
            membrane potential is computed in float32 or float64.
        decay: Leak factor, usually in [0, 1]: a number, a scalar tensor, or a tensor with as many
            axes as ``current`` that broadcasts to [T, *N] ([T, 1, ...] per step, [1, 1, C, 1, 1]
            per channel).
        surrogate: Derivative h(v - v_th) used instead of H' in the backward pass.
        v_th: Threshold, in membrane units, > 0. The neuron fires at ``v >= v_th``.
        gate: Factor g on the input, shaped like a tensor ``decay``; or None for 1.
        noise: Additive noise n [T, *N], in membrane units; or None.
        reset: "hard" (u = 0 after a spike) or "soft" (v_th is subtracted).
        detach_reset: Block the gradient that flows through s into u.
        potentials: Also return v.
        kernel: Name of a kernel; None is the default (see ``use_kernel``).
        T: Number of steps, if ``current`` holds one step that is repeated T times.
        norm: Batch normalisation applied to ``current`` first, over axis 2 with the steps folded
            into the batch; a fused kernel computes it in the same pass.
        window: Rows and columns of average pooling on the spikes, allowed where ``averages``
            returns True; the means [T, B, C, h, w] replace the spikes.

    Returns:
        ``Firing(spikes, v)``: spikes [T, *N] in the dtype of ``current``, and v [T, *N] before
        reset in the dtype of the membrane; both differentiable in current, decay, gate and noise.

    Raises:
        ValueError: If ``current`` has no steps or is not floating point, a shape does not fit, or
            the reset or the kernel is unknown or unavailable.

    Source: Wu et al., 2018, doi:10.3389/fnins.2018.00331 (hard reset); TGO (arXiv:2602.20548) Eqs.
        1 to 3 and 15 (noise).
    """
    shape = _checked_shape(current, T, "integrate_and_fire")
    if reset not in ("hard", "soft"):
        raise ValueError(f"integrate_and_fire: reset is 'hard' or 'soft', got {reset!r}.")
    dtype = membrane_dtype(current.dtype)
    if isinstance(decay, Tensor):
        factor = decay.to(current.device, dtype)
    else:  # filled on the device, because a copy from the host would synchronise a GPU
        factor = torch.full((), decay, dtype=dtype, device=current.device)
    _require_broadcast("decay", factor, shape)
    if gate is not None:
        gate = gate.to(dtype)
        _require_broadcast("gate", gate, shape)
    if noise is not None:
        noise = noise.to(dtype)
        if noise.shape != shape:
            raise ValueError(
                f"integrate_and_fire: noise must be shaped like current {tuple(shape)}, "
                f"got {tuple(noise.shape)}."
            )
    name = _require_kernel(kernel) if kernel is not None else default_kernel(current.device)
    arguments = (factor, gate, noise, float(v_th), reset, detach_reset, surrogate)
    if name in _FUSED:
        known = _backend(name).supports(current.expand(shape), surrogate)
        if known and (norm is None or can_fuse(norm)):
            options = {"T": shape[0], "norm": norm, "window": window}
            return KERNELS[name](current, *arguments, potentials=potentials, **options)
        name = "multistep"
    if window is not None:
        raise ValueError(
            f"integrate_and_fire: kernel {name!r} cannot pool spikes; window needs kernel 'cpu'."
        )
    if norm is not None:
        current = regular(norm(regular(current.flatten(0, 1)))).view(current.shape)
    if name == "multistep":
        return multistep(current, *arguments, potentials=potentials, T=shape[0])
    return KERNELS[name](current.expand(shape), *arguments, potentials=potentials)


def averages(
    x: Tensor, layer: nn.Module, surrogate: Callable[[Tensor], Tensor] | None = None
) -> bool:
    """Whether a kernel call on ``x`` [S, B, C, H, W] can also apply the pooling ``layer``.

    The CPU kernel supports average pooling that is not observed, see ``pooling.can_pool``. If a
    surrogate is given, the kernel must contain it.
    """
    if type(layer) is not nn.AvgPool2d or x.ndim != 5 or as_defined(x.device):
        return False
    from spikeguard.kernels.cpu import pooling

    if surrogate is not None and compiled_as(surrogate) is None:
        return False
    return not is_observed(layer) and pooling.can_fuse_pooling(x, layer)


def _checked_shape(current: Tensor, T: int | None, owner: str) -> torch.Size:
    """Return the shape [T, *N]; reject a current without steps or with integers."""
    if current.ndim < 1 or len(current) == 0:
        raise ValueError(
            f"{owner}: current is [T, *N] with T >= 1, got shape {tuple(current.shape)}."
        )
    if not current.is_floating_point():
        raise ValueError(
            f"{owner}: current must be floating point, got {current.dtype}; use current.float()."
        )
    if T is None:
        return current.shape
    if T < 1 or len(current) not in (1, T):
        raise ValueError(f"{owner}: current has 1 or T = {T} steps, got {len(current)}.")
    return torch.Size((T, *current.shape[1:]))


def _require_broadcast(
    what: str, x: Tensor, shape: torch.Size, owner: str = "integrate_and_fire"
) -> None:
    fits = x.ndim == 0 or (
        x.ndim == len(shape) and all(a in (1, b) for a, b in zip(x.shape, shape, strict=True))
    )
    if not fits:
        raise ValueError(
            f"{owner}: {what} must be a scalar or broadcast to current "
            f"{tuple(shape)} axis by axis, got {tuple(x.shape)}."
        )
