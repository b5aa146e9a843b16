"""Stateless layers, run so that they are fast and remember little; the numbers stay the same.

A convolution keeps its input for the gradient of its weight even where the weight is frozen, as in
every attack; average pooling keeps its input for the shape alone. Both inputs are full spike
trains. And small convolutions are faster on a CPU with the channels innermost in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

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
        ctx.layer, ctx.like = layer, _Like.of(x)
        ctx.save_for_backward(layer.weight)
        return layer(x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        (weight,) = ctx.saved_tensors
        layer = ctx.layer
        settings = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)
        wanted = (True, False, False)
        shaped, weight = ctx.like.empty(grad), weight.to(grad.dtype)
        found = torch.ops.aten.convolution_backward(grad, shaped, weight, None, *settings, wanted)
        return found[0], None


class _AveragePool(torch.autograd.Function):
    """Average pooling that keeps the shape of its input."""

    @staticmethod
    def forward(ctx, x, layer):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.layer, ctx.like = layer, _Like.of(x)
        return layer(x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        layer = ctx.layer
        size, stride, padding = map(_pair, (layer.kernel_size, layer.stride, layer.padding))
        (height, width), shaped = grad.shape[2:], ctx.like.empty(grad)
        whole = [height * size[0], width * size[1]] == list(shaped.shape[2:])
        if whole and size == stride and not any(padding) and not layer.divisor_override:
            share = grad / (size[0] * size[1])  # each value goes to the one window it came from
            windows = shaped.unflatten(3, (width, size[1])).unflatten(2, (height, size[0]))
            windows.copy_(share[:, :, :, None, :, None])
            return shaped, None
        rest = (layer.ceil_mode, layer.count_include_pad, layer.divisor_override)
        found = torch.ops.aten.avg_pool2d_backward(grad, shaped, size, stride, padding, *rest)
        return found, None


class _Like(NamedTuple):
    """Shape and layout of a tensor that is not kept."""

    shape: torch.Size
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor) -> _Like:
        return cls(x.shape, x.is_contiguous(memory_format=torch.channels_last))

    def empty(self, grad: Tensor) -> Tensor:
        """Return memory of this shape and layout; costs nothing until it is written."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return torch.empty(self.shape, dtype=grad.dtype, device=grad.device, memory_format=layout)


def _pair(size: int | tuple[int, int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)
