"""Compiled average pooling over windows that do not overlap: forward and backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeguard.kernels.cpu.library import LONGEST, PRECISION, Windows, call
from spikeguard.kernels.layout import Layout
from spikeguard.kernels.selection import default_kernel

__all__ = ["can_fuse_pooling", "as_pair", "pool", "can_pool", "unpool"]

_LAST = torch.channels_last


def can_pool(x: Tensor, layer: nn.AvgPool2d) -> bool:
    """Whether the compiled passes support ``layer`` on ``x`` [B, C, H, W].

    They need a CPU, float32, float64 or bfloat16, channels innermost in memory, and windows that
    cover the image without gaps, overlap or padding.
    """
    if x.device.type != "cpu" or default_kernel(x.device) != "cpu" or x.ndim != 4:
        return False
    (rows, columns), (height, width) = as_pair(layer.kernel_size), x.shape[2:]
    return (
        x.dtype in PRECISION
        and x.is_contiguous(memory_format=_LAST)
        and as_pair(layer.stride) == (rows, columns)
        and not any(as_pair(layer.padding))
        and layer.divisor_override is None
        and (height % rows, width % columns) == (0, 0)
    )


def can_fuse_pooling(x: Tensor, layer: nn.AvgPool2d) -> bool:
    """Whether the membrane's kernel can pool the spikes of x [S, B, C, H, W] in the same pass."""
    window = as_pair(layer.kernel_size)[1] * x.shape[2]
    return can_pool(x.flatten(0, 1), layer) and Layout.of(x).channels_last and window <= LONGEST


def pool(x: Tensor, layer: nn.AvgPool2d) -> Tensor:
    """Return the mean of every window [B, C, h, w], bit-equal to torch."""
    rows, columns = as_pair(layer.kernel_size)
    height, width = x.shape[2] // rows, x.shape[3] // columns
    shape = (*x.shape[:2], height, width)
    means = torch.empty(shape, dtype=x.dtype, memory_format=_LAST)
    return _run("pool", x, means, means, (rows, columns))


def unpool(grad: Tensor, layer: nn.AvgPool2d) -> Tensor:
    """Return the derivative with respect to the input, given that for the means [B, C, h, w]."""
    rows, columns = as_pair(layer.kernel_size)
    shape = (*grad.shape[:2], grad.shape[2] * rows, grad.shape[3] * columns)
    grad = grad.contiguous(memory_format=_LAST)
    shares = torch.empty(shape, dtype=grad.dtype, memory_format=_LAST)
    return _run("unpool", grad, shares, grad, (rows, columns))


def _run(what: str, x: Tensor, out: Tensor, pooled: Tensor, window: tuple[int, int]) -> Tensor:
    task = Windows(images=len(x), C=x.shape[1], height=pooled.shape[2], width=pooled.shape[3])
    task.rows, task.columns = window
    task.x, task.out = x.data_ptr(), out.data_ptr()
    call(what, task, x.dtype)
    return out


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return a layer's size, which may be one number, as (rows, columns)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
