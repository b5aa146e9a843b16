"""Backward pass through the membrane recurrence with a caller-supplied ds/dv."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from spikeguard.kernels.reference import Reset, step
from spikeguard.kernels.selection import default_kernel

__all__ = ["compiled_passes", "backward_reference", "over_channels", "backward_through_time"]


def compiled_passes(x: Tensor) -> ModuleType | None:
    """Return the module of compiled passes if they support ``x`` and the kernel is ``cpu``."""
    if x.device.type != "cpu" or default_kernel(x.device) != "cpu":
        return None
    module = import_module("spikeguard.kernels.cpu.custom_backward")
    return module if x.dtype in module.PRECISIONS else None


def backward_through_time(
    grad: Tensor,
    slope: Tensor,
    v: Tensor,
    decay: Tensor,
    v_th: float,
    reset: Reset,
    detach_reset: bool,
    scale: Tensor | None = None,
) -> Tensor:
    r"""Return the derivative with respect to the current, given that with respect to the spikes.

    With s'[t] for the slope, g[t] for ``grad``, and r = 0 if the reset is detached, else 1:

    .. math::
        du[t] = \lambda[t+1]\,dv[t+1], \quad
        dv[t] = s'[t]\,(g[t] - r\,v[t]\,du[t]) + (1 - s[t])\,du[t]

    For a soft reset, v_th replaces v[t] and 1 replaces 1 - s[t].

    Args:
        grad: Derivative with respect to the spikes [T, *N].
        slope: ds/dv [T, *N], or [1, *N] for all steps.
        v: Potentials before reset [T, *N].
        decay: Leak factor, as for the kernels.
        v_th: Threshold.
        reset: "hard" or "soft".
        detach_reset: Block the gradient that flows through the reset.
        scale: Factors [C] on the channels (axis 2) of the current, applied before the recurrence;
            the result is then the derivative with respect to the unscaled current.
    """
    fast = compiled_passes(v)
    run = backward_reference if fast is None else fast.backward_through_time
    found: Tensor = run(grad, slope, v, decay, v_th, reset, detach_reset, scale)
    return found


def backward_reference(
    grad: Tensor,
    slope: Tensor,
    v: Tensor,
    decay: Tensor,
    v_th: float,
    reset: Reset,
    detach_reset: bool,
    scale: Tensor | None = None,
) -> Tensor:
    """The definition of :func:`backward_through_time`: a plain loop over T."""
    found: list[Tensor] = []
    du: Tensor | None = None
    for t in reversed(range(len(v))):
        dv = grad[t]
        if du is not None and not detach_reset:
            dv = dv - du * (v[t] if reset == "hard" else v_th)
        dv = dv * step(slope, t)
        if du is not None:
            dv = dv + (du * (v[t] < v_th) if reset == "hard" else du)
        found.append(dv)
        du = dv * step(decay, t)
    dx = torch.stack(found[::-1])
    return dx if scale is None else dx * over_channels(scale, dx)


def over_channels(scale: Tensor, like: Tensor) -> Tensor:
    """Shape one factor per channel to broadcast to [T, B, C, ...]."""
    return scale.view(1, 1, -1, *[1] * (like.ndim - 3))
