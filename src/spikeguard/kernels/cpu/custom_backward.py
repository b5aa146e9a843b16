"""Compiled passes of the CPU kernel for a caller-supplied slope ds/dv.

The definition of ``backward_through_time`` is in ``kernels.custom_backward``, that of ``sharpen``
in ``attacks.gradients.assg``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.kernels.cpu.backend import side_of
from spikeguard.kernels.cpu.library import Retrace, Sharpen, call
from spikeguard.kernels.layout import Layout
from spikeguard.kernels.reference import Reset

__all__ = ["PRECISIONS", "backward_through_time", "sharpen"]

PRECISIONS = (torch.float32, torch.float64)


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
    """Run the recurrence backwards over all T steps; the result has the memory layout of ``v``."""
    layout = Layout.of(v)
    v, grad, slope = layout.dense(v), layout.dense(grad), layout.dense(slope)
    dx = torch.empty_like(v)
    task = Retrace(T=len(v), N=v[0].numel(), C=layout.C, inner=layout.inner, v_th=v_th)
    task.v, task.slope, task.grad = v.data_ptr(), slope.data_ptr(), grad.data_ptr()
    task.slope_steps, task.dx = len(slope), dx.data_ptr()
    task.soft, task.detach = int(reset == "soft"), int(detach_reset)
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    if scale is not None:
        task.scale = keep(scale.contiguous()).data_ptr()
    task.decay = side_of(decay, layout, tuple(v.shape), keep)
    call("retrace", task, v.dtype)
    return dx


def sharpen(v: Tensor, M: Tensor, D: Tensor, v_th: float, **numbers: float) -> Tensor:
    """Update the moments of ASSG in place and return its slope.

    Args:
        v: Potentials.
        M, D: The moments, with the shape and memory layout of ``v``.
        v_th: Threshold.
        numbers: ``sharpness``, ``beta``, ``relaxed``, ``small`` and ``learns`` of the search.
    """
    slope = torch.empty_like(v)
    task = Sharpen(count=v.numel(), v_th=v_th, **numbers)
    task.v, task.slope = v.data_ptr(), slope.data_ptr()
    task.M, task.D = M.data_ptr(), D.data_ptr()
    call("sharpen", task, v.dtype)
    return slope
