r"""Prescribed backward passes: the exact spikes forward, and a derivative of one's choice backward.

A kernel differentiates the recurrence with a surrogate, a function of ``v - v_th`` alone. Attacks
on spiking networks use more: slopes that depend on mean rates or mean currents, on what was seen in
earlier steps of the attack, or that leave out the path through time. A rule says what ds/dv is for
every neuron and step of one pass; :func:`prescribed` differentiates with that. :class:`Analogue`
goes further: it replaces the forward pass too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikeguard.kernels.custom_backward import backward_through_time, over_channels
from spikeguard.kernels.fused import fixed_scale, normalised
from spikeguard.kernels.reference import Reset

__all__ = ["Analogue", "BackwardRule", "Fired", "Prescription", "prescribed"]


@dataclass(frozen=True, eq=False)
class Fired:
    """What one spiking layer did in one forward pass; a rule's only source. No gradients.

    Attributes:
        neuron: The layer.
        integrated: Makes ``current``; asked only if the rule wants it.
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
        """What the membrane integrated: input current times gate, [T, B, *N]."""
        return self.integrated()


class Prescription(NamedTuple):
    """How one pass of one layer is differentiated.

    Attributes:
        slope: Stands in for ds/dv, [T or 1, B, *N] or what broadcasts to it.
        temporal: Follow the recurrence back through time; else only v[t] -> s[t] of each step.
        averaged: Replace the gradient that reaches the input current by its mean over T.
    """

    slope: Tensor
    temporal: bool = False
    averaged: bool = False


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

    With s'[t] for the slope, a gradient g[t] by s[t] becomes s'[t] g[t] by v[t] without time; with
    it, that of :func:`spikeguard.kernels.custom_backward.backward_through_time`. Decay and gate are
    constants: nothing but the current gets a gradient.

    Args:
        rule: Prescribes the slope.
        neuron: The layer, for rules that keep something for each.
        current: Input [T or 1, B, *N]; one step stands for T equal ones.
        spikes: Spikes of the exact forward pass [T, B, *N].
        v: Its potentials before reset.
        decay: Leak factor, as for the kernels.
        gate: Factor on the input, as for the kernels; or None.
        v_th: Threshold.
        reset: "hard" or "soft".
        detach_reset: Block the gradient through the reset, where time is followed.
        norm: Batch normalisation between the current and the membrane, as for the kernels; or None.

    Raises:
        ValueError: If the slope does not fit.
    """
    factor = torch.as_tensor(decay, dtype=v.dtype, device=v.device).detach()
    scale = None
    if norm is not None and (scale := fixed_scale(norm, current)) is None:
        current, norm = normalised(norm, current), None  # statistics of the batch: torch's own way
    gain = None if gate is None else gate.detach().to(v.dtype)

    def integrated() -> Tensor:
        seen = current.detach() if norm is None else normalised(norm, current.detach())
        drive = seen.to(v.dtype).expand(v.shape)
        return drive if gain is None else drive * gain

    slope, temporal, averaged = rule(
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
    path = (v, factor, v_th, reset, detach_reset) if temporal else None
    found: Tensor = _Prescribed.apply(current, spikes, slope, path, gain, averaged, scale)  # type: ignore[no-untyped-call]
    return found


class _Prescribed(torch.autograd.Function):
    """The given spikes forward; backward the recurrence with the given slope."""

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
        if ctx.options is None:
            found = grad * slope
        else:
            (v, decay), (v_th, reset, detach_reset) = path, ctx.options
            early = scale if gain is None and not ctx.averaged else None  # nothing comes between
            found = backward_through_time(grad, slope, v, decay, v_th, reset, detach_reset, early)
            scale = scale if early is None else None
        if gain is not None:
            found *= gain
        if ctx.averaged:
            found = found.mean(0, keepdim=True).expand_as(found)
        if len(ctx.like) < len(found):
            found = found.sum(0, keepdim=True)
        if scale is not None:
            found = found * over_channels(scale, found)
        return _laid_out(found, ctx.like), None, None, None, None, None, None


def _laid_out(x: Tensor, like: Tensor) -> Tensor:
    """Return x in the precision and with the strides of ``like``, as the kernels' gradients are.

    torch's batch normalisation (2.13, CPU) needs that: a batch of one sample whose channels are
    innermost can have strides for which a gradient in another order is read in the wrong one.
    """
    if x.stride() == like.stride() and x.dtype == like.dtype:
        return x
    return torch.empty_like(like, device=x.device).copy_(x)


def _like_itself(x: Tensor) -> Tensor:
    """Return x; its gradient is laid out in memory as x is."""
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
    r"""A spiking layer as an activation function: no time, no spikes, a quantised clipped ReLU.

    .. math:: a = \mathrm{clip}\big(\lfloor L\,\bar I / v_{th} + 1/2 \rfloor / L,\ 0,\ 1\big)

    of the mean current over time (gate included); the floor is differentiated as the identity. The
    leak, the reset and noise play no part.

    Args:
        levels: Steps L of the staircase, >= 1; None takes the layer's T.

    Raises:
        ValueError: If levels is below 1.

    Source: Bu et al., "Optimal ANN-SNN conversion ...", ICLR 2022 (QCFS).
    """

    levels: int | None = None

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"levels counts steps of a staircase, >= 1, got {self.levels}.")

    def __call__(
        self, current: Tensor, *, gate: Tensor | None, v_th: float, T: int | None
    ) -> Tensor:
        """Map a current [T or 1, B, *N] to activations, alike at all steps.

        They are [1, B, *N] where the caller passed T, and so lets one step stand for all, else
        [T, B, *N].
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
