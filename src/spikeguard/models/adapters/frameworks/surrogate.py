"""Surrogates of foreign layers: read the framework's own, or use another in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from spikeguard.neurons.surrogate import Surrogate

__all__ = ["Native", "exchanged"]

Spike = Callable[[Tensor], Tensor]


class _Exchanged(torch.autograd.Function):
    """Forward: the framework's own spikes. Backward: grad * h(x)."""

    @staticmethod
    def forward(ctx, x, spike, surrogate):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return spike(x.detach())

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate(x), None, None


def exchanged(x: Tensor, spike: Spike, surrogate: Surrogate) -> Tensor:
    """Return ``spike(x)``, x = v - v_th, with ``surrogate`` as its derivative."""
    result: Tensor = _Exchanged.apply(x, spike, surrogate)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True)
class Native:
    """A framework's own surrogate; autograd computes its derivative h.

    Args:
        label: Name that identifies it.
        spike: The framework's spike function of x = v - v_th.
        factor: Width relative to the original, > 0.
    """

    label: str
    spike: Spike = field(compare=False, repr=False)
    factor: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x); zero where the framework has no derivative."""
        with torch.enable_grad():
            inner = (x / self.factor).detach().requires_grad_()
            spikes = self.spike(inner)
            if not spikes.requires_grad:
                return torch.zeros_like(x)
            (slope,) = torch.autograd.grad(spikes.sum(), inner)
        return slope / self.factor

    @property
    def half_width(self) -> float:
        """Distance at which h falls to half its value at the threshold; inf if it never does."""
        x = torch.linspace(0, 10, 20001)
        h = replace(self, factor=1.0)(x)
        below = (h <= h[0] / 2).nonzero()
        return float(x[below[0, 0]]) * self.factor if len(below) and h[0] > 0 else float("inf")

    def widened(self, factor: float) -> Native:
        """Return the same shape, ``factor`` times as wide, with the same area."""
        if not factor > 0:
            raise ValueError(f"widened: factor must be positive, got {factor:g}.")
        return replace(self, factor=self.factor * factor)
