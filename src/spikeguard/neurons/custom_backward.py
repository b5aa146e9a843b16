r"""Prescribed backward passes: the exact spikes forward, and a caller-supplied ds/dv backward.

A kernel differentiates the recurrence with a surrogate, a function of ``v - v_th`` alone. Some
attacks on spiking networks need more: slopes that depend on mean rates, on mean currents or on
earlier steps of the attack, or slopes without the path through time. A rule returns ds/dv for every
neuron and step of one pass, and :func:`prescribed` differentiates with it. :class:`Analogue`
replaces the forward pass too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikeguard.kernels.custom_backward import (
    backward_in_step,
    backward_through_time,
    over_channels,
)
from spikeguard.kernels.fused import fixed_scale, normalised
from spikeguard.kernels.reference import Reset

__all__ = ["Analogue", "BackwardRule", "Fired", "Prescription", "prescribed"]


@dataclass(frozen=True, eq=False)
class Fired:
    """One forward pass of a spiking layer, the input of a backward rule. Without gradients.

    Attributes:
        neuron: The layer.
        integrated: Computes ``current``; called only if the rule reads it.
        v: Membrane potential before reset, noise included, [T, B, *N].
        spikes: In {0, 1}, [T, B, *N].
        decay: Leak factor: a scalar, or a tensor that broadcasts to [T, B, *N].
        v_th: The layer's threshold.
    """

    neuron: nn.Module
    integrated: Callable[[], Tensor]
    v: Tensor
    spikes: Tensor
    decay: Tensor
    v_th: float

    @cached_property
    def current(self) -> Tensor:
        """The integrated current: input current times gate, [T, B, *N]."""
        return self.integrated()


class Prescription(NamedTuple):
    """The backward pass of one layer, for one forward pass.

    Attributes:
        slope: Used as ds/dv, [T or 1, B, *N] or broadcastable to it.
        temporal: Backpropagate through time; else only v[t] -> s[t] of each step.
        averaged: Replace the gradient with respect to the input current by its mean over T.
        reset: Let the path through time include the derivative of the reset, unless the layer
            detaches it; False always leaves it out.
    """

    slope: Tensor
    temporal: bool = False
    averaged: bool = False
    reset: bool = True


BackwardRule = Callable[[Fired], Prescription]


def prescribed(
    rule: BackwardRule,
    neuron: nn.Module,
    current: Tensor,
    spikes: Tensor,
    v: Tensor,
    *,
    decay: float | Tensor,
    gate: Tensor | None,
    v_th: float,
    reset: Reset,
    detach_reset: bool,
    norm: nn.Module | None = None,
) -> Tensor:
    r"""Return the spikes, differentiable in the current as the rule prescribes.

    With s'[t] for the slope, a gradient g[t] with respect to s[t] gives s'[t] g[t] with respect to
    v[t] if the rule is not temporal; else see
    :func:`spikeguard.kernels.custom_backward.backward_through_time`. Decay and gate are constants:
    only the current gets a gradient.

    Args:
        rule: Prescribes the slope.
        neuron: The layer, for rules that hold a state for each layer.
        current: Input [T or 1, B, *N]; a single step is repeated T times.
        spikes: Spikes of the exact forward pass [T, B, *N].
        v: Potentials before reset [T, B, *N].
        decay: Leak factor, as for the kernels.
        gate: Factor on the input, as for the kernels; or None.
        v_th: Threshold.
        reset: "hard" or "soft".
        detach_reset: Block the gradient through the reset, if the rule is temporal.
        norm: Batch normalisation between the current and the membrane, as for the kernels; or None.

    Raises:
        ValueError: If the slope does not broadcast to the potentials.
    """
    factor = torch.as_tensor(decay, dtype=v.dtype, device=v.device).detach()
    scale = None
    if norm is not None and (scale := fixed_scale(norm, current)) is None:
        current, norm = normalised(norm, current), None  # batch statistics
    gain = None if gate is None else gate.detach().to(v.dtype)

    def integrated() -> Tensor:
        seen = current.detach() if norm is None else normalised(norm, current.detach())
        drive = seen.to(v.dtype).expand(v.shape)
        return drive if gain is None else drive * gain

    slope, temporal, averaged, through_reset = rule(
        Fired(neuron, integrated, v.detach(), spikes.detach(), factor, v_th)
    )
    shared = zip(reversed(slope.shape), reversed(v.shape), strict=False)
    if slope.ndim > v.ndim or any(a not in (1, b) for a, b in shared):
        raise ValueError(
            f"backward rule: the slope must broadcast to the potentials {list(v.shape)}, got "
            f"{list(slope.shape)}."
        )
    steps = len(slope) if slope.ndim == v.ndim else 1
    slope = slope.detach().to(v.dtype).expand(steps, *v.shape[1:])
    detached = detach_reset or not through_reset
    path = (v, factor, v_th, reset, detached) if temporal else None
    found: Tensor = _Prescribed.apply(current, spikes, slope, path, gain, averaged, scale)  # type: ignore[no-untyped-call]
    return found


class _Prescribed(torch.autograd.Function):
    """Forward: the given spikes. Backward: the recurrence with the given slope."""

    @staticmethod
    def forward(ctx, current, spikes, slope, path, gain, averaged, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.save_for_backward(slope, gain, scale, *(path[:2] if path is not None else ()))
        ctx.options = None if path is None else path[2:]
        ctx.averaged = averaged
        ctx.like = torch.empty_strided(
            current.shape, current.stride(), dtype=current.dtype, device="meta"
        )
        return spikes.view_as(spikes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        slope, gain, scale, *path = ctx.saved_tensors
        grad = grad.to(slope.dtype)
        plain = gain is None and not ctx.averaged  # the pass itself can scale and sum
        total = len(ctx.like) < len(grad)
        rest = (scale, total) if plain else (None, False)
        if ctx.options is None:
            found = backward_in_step(grad, slope, *rest)
        else:
            found = backward_through_time(grad, slope, *path, *ctx.options, *rest)
        if not plain:
            if gain is not None:
                found = found * gain
            if ctx.averaged:
                found = found.mean(0, keepdim=True).expand_as(found)
            if total:
                found = found.sum(0, keepdim=True)
            if scale is not None:
                found = found * over_channels(scale, found)
        return _laid_out(found, ctx.like), None, None, None, None, None, None


def _laid_out(x: Tensor, like: Tensor) -> Tensor:
    """Return x in the dtype and with the strides of ``like``, as the kernels return gradients.

    torch's batch normalisation (2.13, CPU) needs this: for one sample with channels innermost it
    can read a gradient with other strides in the wrong order.
    """
    if x.stride() == like.stride() and x.dtype == like.dtype:
        return x
    return torch.empty_like(like, device=x.device).copy_(x)


def _like_itself(x: Tensor) -> Tensor:
    """Return x; its gradient has the memory layout of x."""
    same: Tensor = _LaidOut.apply(x)  # type: ignore[no-untyped-call]
    return same


class _LaidOut(torch.autograd.Function):
    """The identity; its gradient has the strides of the input."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.like = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return _laid_out(grad, ctx.like)


@dataclass(frozen=True)
class Analogue:
    r"""An activation function in place of a spiking layer: a quantised, clipped ReLU.

    .. math:: a = \mathrm{clip}\big(\lfloor L\,\bar I / v_{th} + 1/2 \rfloor / L,\ 0,\ 1\big)

    where the current is averaged over time (gate included) and the floor is differentiated as the
    identity. Leak, reset and noise are ignored.

    Args:
        levels: Steps L of the staircase, >= 1; None uses the layer's T.

    Raises:
        ValueError: If levels is below 1.

    Source: Bu et al., "Optimal ANN-SNN conversion ...", ICLR 2022 (QCFS).
    """

    levels: int | None = None

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"Analogue: levels must be >= 1, got {self.levels}.")

    def __call__(
        self, current: Tensor, *, gate: Tensor | None, v_th: float, T: int | None
    ) -> Tensor:
        """Map a current [T or 1, B, *N] to activations that are equal at all steps.

        Their shape is [1, B, *N] if the caller passed T, because one step may then be repeated;
        else [T, B, *N].
        """
        steps = len(current) if T is None else T
        levels = steps if self.levels is None else self.levels
        current = _like_itself(current)
        if gate is not None:
            current = current * gate.detach().to(current.dtype)
        scaled = current.mean(0, keepdim=True) / v_th * levels
        floored = scaled + (torch.floor(scaled + 0.5) - scaled).detach()
        activation = (floored / levels).clamp(0, 1)
        return activation if T is not None else activation.expand(steps, *activation.shape[1:])
