"""Faster versions of stateless torch layers that save less memory and return the same values.

torch's convolution saves its input for the gradient of the weight even if the weight is frozen, as
in every attack. Its average pooling saves its input, of which only the shape is needed. Both inputs
are full spike trains. Here an input is saved only if a gradient needs it, and spikes take one byte
each. On a CPU, convolutions run with the channels innermost in memory, which is faster for small
ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikeguard.kernels.cpu import pooling
from spikeguard.kernels.observation import is_observed
from spikeguard.kernels.selection import as_defined

__all__ = ["run"]

_NAMED_PADDINGS = ("same", "valid")  # torch computes their size


def run(layer: Callable[[Tensor], Tensor], x: Tensor, *, spikes: bool = False) -> Tensor:
    """Return ``layer(x)`` for a stateless layer, ``x`` [B, ...].

    Args:
        layer: A module or a function. Functions, observed modules and layers without a faster
            version are called unchanged; if ``spikeguard.kernels.as_defined``, all layers are.
        x: Its input.
        spikes: Whether every entry of ``x`` is 0 or 1.
    """
    if not isinstance(layer, nn.Module) or is_observed(layer) or as_defined(x.device):
        return layer(x)
    if (
        type(layer) is nn.Conv2d
        and layer.padding_mode == "zeros"
        and layer.padding not in _NAMED_PADDINGS
    ):
        channels_last = x.device.type == "cpu"
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        y: Tensor = _Conv.apply(x, layer.weight, layer.bias, layer, spikes)  # type: ignore[no-untyped-call]
        if channels_last:
            y = y.contiguous(memory_format=torch.channels_last)
        return y
    if type(layer) is nn.AvgPool2d:
        pooled: Tensor = _AveragePool.apply(x, layer)  # type: ignore[no-untyped-call]
        return pooled
    called: Tensor = layer(x)
    return called


class _Conv(torch.autograd.Function):
    """Convolution that saves its input only if the weight needs a gradient; spikes as bytes."""

    @staticmethod
    def forward(ctx, x, weight, bias, layer, spikes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.settings = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)
        ctx.like, ctx.bias = _Like.of(x), bias
        kept = None
        if ctx.needs_input_grad[1]:
            kept = x.to(torch.uint8) if spikes else x
        ctx.save_for_backward(weight, kept)
        return layer(x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        weight, kept = ctx.saved_tensors
        x = ctx.like.empty(grad) if kept is None else kept.to(grad.dtype)
        wanted, sizes = ctx.needs_input_grad[:3], [len(weight)]
        d_x, d_weight, d_bias = torch.ops.aten.convolution_backward(
            grad, x, weight.to(grad.dtype), sizes, *ctx.settings, wanted
        )
        if d_weight is not None:
            d_weight = d_weight.to(weight.dtype)
        if d_bias is not None:
            d_bias = d_bias.to(ctx.bias.dtype)
        return d_x, d_weight, d_bias, None, None


class _AveragePool(torch.autograd.Function):
    """Average pooling that does not save its input; compiled if the windows tile the image."""

    @staticmethod
    def forward(ctx, x, layer):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.layer, ctx.like, ctx.tiled = layer, _Like.of(x), pooling.can_pool(x, layer)
        return pooling.pool(x, layer) if ctx.tiled else layer(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        layer = ctx.layer
        if ctx.tiled:
            return pooling.unpool(grad, layer), None
        where = (layer.kernel_size, layer.stride, layer.padding)
        size, stride, padding = (pooling.as_pair(each) for each in where)
        rest = (layer.ceil_mode, layer.count_include_pad, layer.divisor_override)
        shaped = ctx.like.empty(grad)
        found = torch.ops.aten.avg_pool2d_backward(grad, shaped, size, stride, padding, *rest)
        return found, None


class _Like(NamedTuple):
    """Shape and memory layout of a tensor that is not saved."""

    shape: torch.Size
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor) -> _Like:
        return cls(x.shape, x.is_contiguous(memory_format=torch.channels_last))

    def empty(self, grad: Tensor) -> Tensor:
        """Return an uninitialised tensor of this shape and layout, on the device of ``grad``."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return torch.empty(self.shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
