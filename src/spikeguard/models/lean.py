"""Stateless layers, run so that they are fast and remember little; the numbers stay the same.

A convolution keeps its input for the gradient of its weight even where the weight is frozen, as in
every attack; average pooling keeps its input for the shape alone. Both inputs are full spike
trains. And small convolutions are faster on a CPU with the channels innermost in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from spikeguard.kernels import fusing

__all__ = ["run"]


def run(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return ``layer(x)`` for a layer that knows no time, ``x`` [B, ...].

    With a kernel that is not fused (see ``spikeguard.kernels.use_kernel``) nothing is changed.
    """
    if not fusing(x.device) or not isinstance(layer, nn.Module) or _watched(layer):
        return layer(x)
    if type(layer) is nn.Conv2d:
        channels_last = x.device.type == "cpu"
        x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
        convolve: Callable[..., Tensor] = _FrozenConv.apply if _frozen(layer) else _plain
        y: Tensor = convolve(x, layer)
        if channels_last:
            y = y.contiguous(memory_format=torch.channels_last)
        return y
    if type(layer) is nn.AvgPool2d:
        pooled: Tensor = _AveragePool.apply(x, layer)  # type: ignore[no-untyped-call]
        return pooled
    return _plain(x, layer)


def _watched(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)


def _frozen(layer: nn.Conv2d) -> bool:
    """Whether the input is all there is to differentiate by, and the padding is plain zeros."""
    padded_by_zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return padded_by_zeros and not any(p.requires_grad for p in layer.parameters())


def _plain(x: Tensor, layer: nn.Module) -> Tensor:
    y: Tensor = layer(x)
    return y


class _FrozenConv(torch.autograd.Function):
    """A convolution that is differentiated by its input alone, and so need not keep it."""

    @staticmethod
    def forward(ctx, x, layer):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        settings = (layer.stride, layer.padding, layer.dilation, layer.groups)
        y = functional.conv2d(x, layer.weight, layer.bias, *settings)
        ctx.save_for_backward(layer.weight)
        ctx.shape, ctx.dtype, ctx.settings = x.shape, y.dtype, settings
        return y

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        (weight,) = ctx.saved_tensors
        weight = weight.to(grad.dtype)
        return conv2d_input(ctx.shape, weight, grad, *ctx.settings), None  # type: ignore[no-untyped-call]


class _AveragePool(torch.autograd.Function):
    """Average pooling that keeps the shape of its input."""

    @staticmethod
    def forward(ctx, x, layer):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.layer, ctx.shape = layer, x.shape
        ctx.channels_last = x.is_contiguous(memory_format=torch.channels_last)
        return layer(x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        layer = ctx.layer
        layout = torch.channels_last if ctx.channels_last else torch.contiguous_format
        shaped = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
        return torch.ops.aten.avg_pool2d_backward(
            grad,
            shaped,  # never read, only asked for its shape
            _pair(layer.kernel_size),
            _pair(layer.stride),
            _pair(layer.padding),
            layer.ceil_mode,
            layer.count_include_pad,
            layer.divisor_override,
        ), None


def _pair(size: int | tuple[int, int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)
