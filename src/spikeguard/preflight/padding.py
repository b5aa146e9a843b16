"""Weights of convolutions that are only ever multiplied by zeros of the padding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PaddingOnly", "padding_recorded"]

_SHARE = 0.05  # of all weights, from which a sentence is written


@dataclass
class PaddingOnly:
    """Kernel taps that saw the image in at least one pass, by convolution.

    Attributes:
        total: Number of all trainable numbers of the model.
        seen: For each convolution, by name: its weight's shape, and which taps [kh, kw] were
            multiplied by a position inside the input.
    """

    total: int
    seen: dict[str, tuple[torch.Size, Tensor]] = field(default_factory=dict)

    @property
    def layers(self) -> dict[str, int]:
        """Number of weights that saw padding only, of each convolution that has some."""
        counts = {
            name: shape[0] * shape[1] * int((~taps).sum())
            for name, (shape, taps) in self.seen.items()
        }
        return {name: count for name, count in counts.items() if count}

    @property
    def weights(self) -> int:
        """Number of weights that saw padding only; they have no effect and no gradient."""
        return sum(self.layers.values())

    def __str__(self) -> str:
        if self.weights <= _SHARE * self.total:
            return ""
        layers = list(self.layers)
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        return (
            f"{100 * self.weights / self.total:.1f} % of the weights ({self.weights:,} of "
            f"{self.total:,}) see nothing but padding at this image size, in {layers[0]}{more}: "
            "they have no effect; use larger images or less striding (of SpikeGuard's residual "
            "networks, stem: cifar)."
        )


@contextmanager
def padding_recorded(model: nn.Module) -> Iterator[PaddingOnly]:
    """Record, in the passes of the block, which kernel taps of zero-padded convolutions see data.

    A tap i of a kernel sees position o * stride - padding + i * dilation of the input at output o.
    """
    found = PaddingOnly(sum(p.numel() for p in model.parameters()))
    handles = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":

            def look(module: nn.Conv2d, given: tuple[Any, ...], out: Any, name: str = name) -> None:
                rows, columns = (
                    _reached(module, axis, given[0].shape[axis - 2], out.shape[axis - 2])
                    for axis in (0, 1)
                )
                taps = rows[:, None] & columns
                if name in found.seen:
                    taps = taps | found.seen[name][1]
                found.seen[name] = (module.weight.shape, taps)

            handles.append(layer.register_forward_hook(look))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _reached(layer: nn.Conv2d, axis: int, size: int, outputs: int) -> Tensor:
    """Return which taps of one axis of the kernel are inside the input for some output."""
    kernel, stride, dilation = (
        each[axis] for each in (layer.kernel_size, layer.stride, layer.dilation)
    )
    if layer.padding == "same":
        before = dilation * (kernel - 1) // 2
    else:
        before = 0 if isinstance(layer.padding, str) else layer.padding[axis]
    at = torch.arange(outputs)[:, None] * stride - before + torch.arange(kernel) * dilation
    return ((at >= 0) & (at < size)).any(0)
