"""Statistics over a batch that several processes share: mean and variance as of the whole batch.

Inside ``shared_statistics(model, total)`` every batch normalisation in training mode normalises by
the mean and the variance over the samples of all processes, as one process does with the whole
batch. The gradient flows through them to the samples of every process, for second derivatives too.
torch's SyncBatchNorm does not run on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Total", "is_shared", "moments", "shared_statistics", "track"]

Total = Callable[[Tensor], Tensor]  # the sum of a tensor over processes, a new tensor

# A variable of the module, because backward passes run in other threads.
_total: Total | None = None


class _SharedForward(partial[Tensor]):
    """The ``forward`` of a batch normalisation inside ``shared_statistics``."""


@contextmanager
def shared_statistics(model: nn.Module, total: Total | None) -> Iterator[None]:
    """Share the statistics of batches with other processes inside the block.

    All of them run the same layers in the same order. Other layers that depend on the whole batch
    are not changed.

    Args:
        model: Its batch normalisations of torch's classes share their statistics.
        total: Sums a tensor over all processes; None shares nothing.
    """
    global _total
    if total is None:
        yield
        return
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    replaced = [norm for norm in norms if "forward" not in norm.__dict__]
    before, _total = _total, total
    for norm in replaced:
        norm.forward = _SharedForward(_normalise, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        _total = before
        for norm in replaced:
            del norm.forward


def is_shared(module: nn.Module) -> bool:
    """Whether a module's ``forward`` is replaced by ``shared_statistics`` alone."""
    return isinstance(module.__dict__.get("forward"), _SharedForward)


def moments(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of x over some axes, the samples of all processes included.

    Args:
        x: Values; one of the axes is the sample axis.
        axes: The axes to reduce.
    """
    if _total is None:
        return x.mean(list(axes)), x.var(list(axes), correction=0)
    mean, var, _ = _moments_of_all(x, axes)
    return mean.to(x.dtype), var.to(x.dtype)


def _moments_of_all(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and biased variance in float64, and the number of values of each."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    var, mean = torch.var_mean(wide, list(axes), correction=0)
    var, mean = var.double(), mean.double()
    count = mean.new_tensor(x.numel() / max(1, mean.numel()))
    sums = [count.view(1), (count * mean).flatten(), (count * (var + mean.square())).flatten()]
    found: Tensor = _Sum.apply(torch.cat(sums))  # type: ignore[no-untyped-call]
    first, second = found[1:].view(2, *mean.shape) / found[0]
    return first, (second - first.square()).clamp_min(0), found[0].detach()


class _Sum(torch.autograd.Function):
    """The sum over processes. A process's value counts in the result of each one, so the gradient
    is the sum of theirs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        assert _total is not None
        ctx.total = _total
        return _total(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        with _totalled_by(ctx.total):
            summed: Tensor = _Sum.apply(grad)  # type: ignore[no-untyped-call]
        return summed


@contextmanager
def _totalled_by(total: Total) -> Iterator[None]:
    """Let the backward pass sum as the forward pass did, also after the block has ended."""
    global _total
    before, _total = _total, total
    try:
        yield
    finally:
        _total = before


def _normalise(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Return the normalisation of x [B, C, ...] by statistics of the batch of all processes."""
    if not norm.training and norm.running_mean is not None:
        return type(norm).forward(norm, x)
    norm._check_input_dim(x)  # type: ignore[no-untyped-call]
    mean, var, count = _moments_of_all(x, [0, *range(2, x.ndim)])
    if float(count) <= 1:
        raise ValueError(
            "batch normalisation in training needs more than one value per channel, got "
            f"{list(x.shape)}; use a larger batch, or model.eval()."
        )
    if norm.training:
        track(norm, mean.detach(), var.detach(), float(count))
    scale = torch.rsqrt(var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -mean * scale if norm.bias is None else norm.bias.double() - mean * scale
    shape = (1, -1, *[1] * (x.ndim - 2))
    wide = torch.promote_types(x.dtype, torch.float32)
    normal: Tensor = x * scale.to(wide).view(shape) + shift.to(wide).view(shape)
    return normal.to(x.dtype)


@torch.no_grad()
def track(norm: _BatchNorm, mean: Tensor, var: Tensor, count: float) -> None:
    """Update the running statistics of a batch normalisation as torch does, if it keeps some.

    Args:
        norm: The layer; nothing changes without running statistics or ``track_running_stats``.
        mean: Mean of each channel [C].
        var: Biased variance of each channel [C].
        count: Number of values of each channel.
    """
    if norm.running_mean is None or norm.running_var is None or not norm.track_running_stats:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum
    if share is None:
        share = 1 / float(norm.num_batches_tracked)
    unbiased = var * (count / max(1.0, count - 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
