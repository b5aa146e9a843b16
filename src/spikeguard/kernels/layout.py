"""How a layer's tensors lie in memory: what the compiled kernels, which see pointers, must know."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Layout", "is_table", "regular"]


@dataclass(frozen=True)
class Layout:
    """Channels apart or innermost: the channel of element i of a step is (i // inner) % C.

    Attributes:
        C: Channels, the length of axis 2; 1 for tensors with fewer axes.
        inner: Elements that follow one another in memory in the same channel.
        channels_last: Whether [S, B, C, H, W] lies in memory as [S, B, H, W, C].
    """

    C: int = 1
    inner: int = 1
    channels_last: bool = False

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        """Return the layout of ``x`` [S, *N], or the one to copy it to."""
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
        """Return ``x`` [S, *N] itself, or a copy, without gaps and in this layout."""
        if not self.channels_last:
            return x.contiguous()
        folded = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return folded.view(x.shape)

    def empty(self, like: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
        """Return new memory in this layout for [steps, *N], on the device of ``like`` [S, *N]."""
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
    """Return ``x`` [B, C, H, W], itself and its gradient with the strides that a fresh tensor has.

    The stride of an axis of length 1 says nothing, and views leave any number there. torch's batch
    normalisation (2.13, CPU) guesses the layout from it: a batch of one sample whose channels are
    innermost then meets a gradient that is read in another order, and is silently wrong.
    """
    if x.ndim != 4 or 1 not in x.shape:
        return x
    found: Tensor = _Regular.apply(x)  # type: ignore[no-untyped-call]
    return found


class _Regular(torch.autograd.Function):
    """The identity; no memory is copied, unless there are gaps in it."""

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
