"""Memory layout of a layer's tensors, which the compiled kernels access through pointers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Layout", "is_table", "regular"]


@dataclass(frozen=True)
class Layout:
    """Position of the channels in memory: element i of a step has channel (i // inner) % C.

    Attributes:
        C: Channels, the length of axis 2; 1 for tensors with fewer axes.
        inner: Number of consecutive elements in memory that share a channel.
        channels_last: Whether [S, B, C, H, W] is stored as [S, B, H, W, C].
    """

    C: int = 1
    inner: int = 1
    channels_last: bool = False

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        """Return the layout of ``x`` [S, *N]; if ``x`` has gaps, the layout to copy it to."""
        if x.ndim < 3:
            return cls()
        if (
            x.ndim == 5
            and not x.is_contiguous()
            and x.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        ):
            return cls(x.shape[2], 1, True)
        return cls(x.shape[2], math.prod(x.shape[3:]))

    def dense(self, x: Tensor) -> Tensor:
        """Return ``x`` [S, *N] without gaps and in this layout; a copy only if necessary."""
        if not self.channels_last:
            return x.contiguous()
        folded = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return folded.view(x.shape)

    def empty(self, like: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
        """Return an uninitialised [steps, *N] in this layout, on the device of ``like`` [S, *N]."""
        shape = (steps, *like.shape[1:])
        if not self.channels_last:
            return torch.empty(shape, dtype=dtype, device=like.device)
        folded = torch.empty(
            (steps * shape[1], *shape[2:]),
            dtype=dtype,
            device=like.device,
            memory_format=torch.channels_last,
        )
        return folded.view(shape)


def is_table(side: Tensor) -> bool:
    """Whether a decay or gate varies along steps and channels (axes 0 and 2) only."""
    return all(n == 1 for axis, n in enumerate(side.shape) if axis not in (0, 2))


def regular(x: Tensor) -> Tensor:
    """Return ``x`` [B, C, H, W] with the strides of a newly allocated tensor, also in its gradient.

    The stride of an axis of length 1 is arbitrary, and views leave any number there. torch's batch
    normalisation (2.13, CPU) infers the memory layout from it: for one sample with channels
    innermost it then reads the gradient in the wrong order, and the result is silently wrong.
    """
    if x.ndim != 4 or 1 not in x.shape:
        return x
    found: Tensor = _Regular.apply(x)  # type: ignore[no-untyped-call]
    return found


class _Regular(torch.autograd.Function):
    """The identity; memory is copied only if it has gaps."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return _restrided(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return _restrided(grad)


def _restrided(x: Tensor) -> Tensor:
    _, c, h, w = x.shape
    if x.is_contiguous():
        return x.as_strided(x.shape, (c * h * w, h * w, w, 1))
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.as_strided(x.shape, (h * w * c, 1, w * c, c))
    return x.contiguous()
