"""Back through the recurrence where somebody else says what ds/dv is."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from spikeguard.kernels.reference import Reset, step
from spikeguard.kernels.selection import default_kernel

__all__ = ["compiled_passes", "backward_reference", "over_channels", "backward_through_time"]


def compiled_passes(x: Tensor) -> ModuleType | None:
    """Return the compiled passes, ``cpu_slopes``, where they can take ``x`` and are wanted."""
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
    r"""Return the derivative by the current, given that by the spikes.

    With s'[t] for the slope, g[t] for ``grad`` and r = 0 where the reset is detached, else 1:

    .. math::
        du[t] = \lambda[t+1]\,dv[t+1], \quad
        dv[t] = s'[t]\,(g[t] - r\,v[t]\,du[t]) + (1 - s[t])\,du[t]

    and for a soft reset v_th in the place of v[t], and 1 in that of 1 - s[t].

    Args:
        grad: [T, *N].
        slope: [T, *N], or [1, *N] for all steps.
        v: Potentials before reset [T, *N].
        decay: As the kernels take it.
        v_th: Threshold.
        reset: "hard" or "soft".
        detach_reset: Nothing flows through the reset.
        scale: Factors [C] by which the current was multiplied, channel by channel (axis 2), before
            the membrane saw it; the derivative is that by what was multiplied.
    """
    fast = compiled_passes(v)
    way = backward_reference if fast is None else fast.backward_through_time
    found: Tensor = way(grad, slope, v, decay, v_th, reset, detach_reset, scale)
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
    """Shape one factor a channel so that it goes with [T, B, C, ...]."""
    return scale.view(1, 1, -1, *[1] * (like.ndim - 3))
