"""Backward pass through a spiking layer with a caller-supplied ds/dv, through time or not."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from spikeguard.kernels.reference import Reset, step
from spikeguard.kernels.selection import default_kernel

__all__ = [
    "backward_in_step",
    "backward_reference",
    "backward_through_time",
    "compiled_passes",
    "in_step_reference",
    "over_channels",
]


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
    total: bool = False,
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
        total: Return the sum over T [1, *N], the derivative with respect to a current that is the
            same at every step.
    """
    fast = compiled_passes(v)
    run = backward_reference if fast is None else fast.backward_through_time
    found: Tensor = run(grad, slope, v, decay, v_th, reset, detach_reset, scale, total)
    return found


def backward_in_step(
    grad: Tensor, slope: Tensor, scale: Tensor | None = None, total: bool = False
) -> Tensor:
    """Return the derivative with respect to the current without the path through time.

    Args:
        grad: Derivative with respect to the spikes [T, *N].
        slope: ds/dv [T, *N], or [1, *N] for all steps.
        scale: Factors [C] on the channels, as for ``backward_through_time``.
        total: Return the sum over T [1, *N].
    """
    fast = compiled_passes(slope)
    run = in_step_reference if fast is None else fast.backward_in_step
    found: Tensor = run(grad, slope, scale, total)
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
    total: bool = False,
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
    return _scaled(found, scale, total)


def in_step_reference(
    grad: Tensor, slope: Tensor, scale: Tensor | None = None, total: bool = False
) -> Tensor:
    """The definition of :func:`backward_in_step`."""
    found = grad * slope
    if total:
        return _scaled(list(found.flip(0)), scale, total)
    return found if scale is None else found * over_channels(scale, found)


def _scaled(found: list[Tensor], scale: Tensor | None, total: bool) -> Tensor:
    """Stack or sum what was found for the last step first, and multiply by the scale."""
    dx = sum(found, torch.zeros_like(found[0]))[None] if total else torch.stack(found[::-1])
    return dx if scale is None else dx * over_channels(scale, dx)


def over_channels(scale: Tensor, like: Tensor) -> Tensor:
    """Shape one factor per channel to broadcast to [T, B, C, ...]."""
    return scale.view(1, 1, -1, *[1] * (like.ndim - 3))
