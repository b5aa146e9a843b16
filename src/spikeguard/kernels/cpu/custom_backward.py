"""Compiled passes of the CPU kernel for a caller-supplied slope ds/dv.

The definitions of ``backward_through_time`` and ``backward_in_step`` are in
``kernels.custom_backward``, that of ``sharpen`` in ``attacks.gradients.assg``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.kernels.cpu.backend import side_of
from spikeguard.kernels.cpu.library import Retrace, Sharpen, call
from spikeguard.kernels.layout import Layout
from spikeguard.kernels.reference import Reset

__all__ = ["PRECISIONS", "backward_in_step", "backward_through_time", "sharpen"]

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
    total: bool = False,
) -> Tensor:
    """Run the recurrence backwards over all T steps; the result has the memory layout of ``v``."""
    layout = Layout.of(v)
    v = layout.dense(v)
    task = Retrace(v=v.data_ptr(), v_th=v_th, soft=int(reset == "soft"), detach=int(detach_reset))
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    task.decay = side_of(decay, layout, tuple(v.shape), keep)
    return _run(task, grad, slope, layout, scale, total)


def backward_in_step(
    grad: Tensor, slope: Tensor, scale: Tensor | None = None, total: bool = False
) -> Tensor:
    """Multiply by the slope in one pass; the result has the memory layout of ``slope``."""
    return _run(Retrace(), grad, slope, Layout.of(slope), scale, total)


def _run(
    task: Retrace, grad: Tensor, slope: Tensor, layout: Layout, scale: Tensor | None, total: bool
) -> Tensor:
    grad, slope = layout.dense(grad), layout.dense(slope)
    dx = layout.empty(grad, 1 if total else len(grad), grad.dtype)
    task.T, task.N, task.C, task.inner = len(grad), grad[0].numel(), layout.C, layout.inner
    task.slope, task.grad, task.dx = slope.data_ptr(), grad.data_ptr(), dx.data_ptr()
    task.slope_steps, task.total = len(slope), int(total)
    if scale is not None:
        scale = scale.contiguous()
        task.scale = scale.data_ptr()
    call("retrace", task, grad.dtype)
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
