"""Batch normalisation and the membrane recurrence as one autograd node, for all devices.

A backend implements four passes over memory: fire, differentiate, moments and combine. The
equations of batch normalisation are here. Only the input is saved for the backward pass, not the
normalised current and not the potentials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeguard.kernels.batch_statistics import track
from spikeguard.kernels.layout import regular
from spikeguard.kernels.observation import is_observed
from spikeguard.kernels.reference import Firing, Reset, membrane_dtype

__all__ = [
    "Backend",
    "Layer",
    "Rule",
    "Slopes",
    "Wants",
    "can_fuse",
    "fire",
    "fixed_scale",
    "normalised",
]


class Rule(NamedTuple):
    """The options of a call; fields as for ``integrate_and_fire``.

    With a window the backend returns means of spikes and receives the derivative with respect to
    these means. If ``smooth``, the integral of the surrogate from -infinity takes the place of the
    spike, so the surrogate is its exact derivative; only the CPU kernel has it, for a Gaussian.
    """

    T: int
    v_th: float
    reset: Reset
    detach_reset: bool
    surrogate: Callable[[Tensor], Tensor]
    window: tuple[int, int] | None = None
    smooth: bool = False


class Layer(NamedTuple):
    """Tensors and options of one call. S is T, or 1 if one stored step is repeated T times.

    Attributes:
        rule: Steps, threshold, reset and surrogate.
        x: [S, *N] of any floating-point dtype: the current, or the current before ``scale`` and
            ``shift``.
        scale: [C] (axis 2 of ``x``), in the dtype of the membrane: the current is
            scale x + shift. None if ``x`` is the current.
        shift: [C]; None if ``scale`` is None.
        decay: A scalar, or a tensor that broadcasts to [T, *N] axis by axis.
        gate: As for ``decay``; or None.
        noise: [T, *N]; or None.
    """

    rule: Rule
    x: Tensor
    scale: Tensor | None
    shift: Tensor | None
    decay: Tensor
    gate: Tensor | None
    noise: Tensor | None


class Slopes(NamedTuple):
    """Derivatives of the loss; None where not requested.

    Attributes:
        g: [S, *N], summed over T if S is 1. If ``raw`` was requested, the derivative with respect
            to the current, in the dtype of the membrane; else with respect to x, in its dtype.
        sums: [2, C] in float64: the sums of g and of g x per channel, where g is the derivative
            with respect to the current.
        decay: Shaped like the decay.
        gate: Shaped like the gate.
        noise: [T, *N].
    """

    g: Tensor | None
    sums: Tensor | None
    decay: Tensor | None
    gate: Tensor | None
    noise: Tensor | None


class Wants(NamedTuple):
    """The derivatives that a backward pass must return; for ``raw`` see ``Slopes.g``."""

    x: bool
    raw: bool
    sums: bool
    decay: bool
    gate: bool
    noise: bool


class Backend(Protocol):
    """The passes over memory that a device implements."""

    def supports(self, x: Tensor, surrogate: object) -> bool:
        """Whether the kernel supports the device and dtype of ``x`` and the surrogate."""

    def fire(self, layer: Layer, potentials: bool) -> tuple[Tensor, Tensor | None]:
        """Return spikes [T, *N] in the dtype of x, and v in the dtype of the membrane or None."""

    def differentiate(
        self, layer: Layer, d_spikes: Tensor | None, d_v: Tensor | None, wants: Wants
    ) -> Slopes:
        """Return the derivatives, given those with respect to the spikes and v."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of ``x`` [S, B, C, ...] for each channel, float64 [C]."""

    def combine(self, g: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Return a g + b x + c per channel, in the dtype of ``x``."""


@dataclass
class _Norm:
    """A batch normalisation module and the batch statistics of one call."""

    module: nn.BatchNorm1d | nn.BatchNorm2d
    mean: Tensor | None = None
    var: Tensor | None = None

    @property
    def of_the_batch(self) -> bool:
        return self.module.training or self.module.running_mean is None


def can_fuse(norm: nn.Module) -> bool:
    """Whether a module is a plain batch normalisation that is not observed."""
    return type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d) and not is_observed(norm)


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """Return the batch normalisation of x [S, B, C, ...] without updating its statistics.

    Recorders and backward rules use it to get the current, which a fused kernel does not store.
    """
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    of_the_batch = norm.training or norm.running_mean is None
    mean, var = (None, None) if of_the_batch else (norm.running_mean, norm.running_var)
    y = functional.batch_norm(
        regular(x.flatten(0, 1)), mean, var, norm.weight, norm.bias, of_the_batch, 0.0, norm.eps
    )
    return regular(y).view(x.shape)


def fixed_scale(norm: nn.Module, x: Tensor) -> Tensor | None:
    """Return the factor [C] by which batch normalisation multiplies each channel of x.

    None if the factor depends on x or a parameter of the module requires a gradient.
    """
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    learns = any(parameter.requires_grad for parameter in norm.parameters())
    if norm.training or norm.running_var is None or learns:
        return None
    rstd = torch.rsqrt(norm.running_var + norm.eps)
    return (rstd if norm.weight is None else norm.weight * rstd).to(membrane_dtype(x.dtype))


def fire(
    backend: Backend,
    current: Tensor,
    decay: Tensor,
    gate: Tensor | None,
    noise: Tensor | None,
    v_th: float,
    reset: Reset,
    detach_reset: bool,
    surrogate: Callable[[Tensor], Tensor],
    *,
    potentials: bool = True,
    T: int | None = None,
    norm: nn.Module | None = None,
    window: tuple[int, int] | None = None,
    smooth: bool = False,
) -> Firing:
    """Normalise, integrate and fire in one node; arguments as checked by ``integrate_and_fire``.

    For ``smooth`` see ``Rule``.
    The running statistics of ``norm`` are updated as in torch.
    """
    steps = len(current) if T is None else T
    rule = Rule(steps, v_th, reset, detach_reset, surrogate, window, smooth)
    weight = bias = plan = None
    if norm is not None:
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        weight, bias, plan = norm.weight, norm.bias, _Norm(norm)
    tensors = (current, decay, gate, noise, weight, bias)
    spikes, v = _Fused.apply(*tensors, rule, backend, plan, potentials)  # type: ignore[no-untyped-call]
    if plan is not None and norm is not None and norm.training:
        assert plan.mean is not None and plan.var is not None
        track(plan.module, plan.mean, plan.var, current[:, :, 0].numel())
    return Firing(spikes, v)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]  # noqa: ANN205
        ctx,  # noqa: ANN001
        current: Tensor,
        decay: Tensor,
        gate: Tensor | None,
        noise: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        rule: Rule,
        backend: Backend,
        norm: _Norm | None,
        potentials: bool,
    ):
        ctx.set_materialize_grads(False)
        ctx.rule, ctx.backend = rule, backend
        ctx.of_the_batch = norm is not None and norm.of_the_batch
        mean = rstd = scale = shift = None
        if norm is not None:
            mean, rstd, scale, shift = _affine(norm, current, weight, bias, backend)
        ctx.save_for_backward(current, decay, gate, noise, mean, rstd, scale, shift)
        return backend.fire(Layer(rule, current, scale, shift, decay, gate, noise), potentials)

    @staticmethod
    def backward(ctx, d_spikes, d_v):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        if torch.is_grad_enabled():  # the caller wrote create_graph=True
            raise RuntimeError(
                "the fused kernels are differentiable once; run the model inside "
                "spikeguard.kernels.use_kernel('reference') for second derivatives."
            )
        if d_spikes is None and d_v is None:
            return (None,) * 10
        current, decay, gate, noise, mean, rstd, scale, shift = ctx.saved_tensors
        layer = Layer(ctx.rule, current, scale, shift, decay, gate, noise)
        need = ctx.needs_input_grad
        through_statistics = ctx.of_the_batch and need[0]
        sums = through_statistics or need[4] or need[5]
        wants = Wants(need[0], through_statistics, sums, need[1], need[2], need[3])
        slopes = ctx.backend.differentiate(layer, d_spikes, d_v, wants)
        d_x, d_weight, d_bias = slopes.g, None, None
        if sums:
            d_bias, of_x = slopes.sums
            d_weight = rstd * (of_x - mean * d_bias)
            if through_statistics:
                n = current[:, :, 0].numel()
                slant = -scale * rstd * d_weight / n
                level = -scale * d_bias / n - slant * mean
                d_x = ctx.backend.combine(slopes.g, current, scale, slant, level)
            d_weight = d_weight.to(scale.dtype) if need[4] else None
            d_bias = d_bias.to(scale.dtype) if need[5] else None
        found = (d_x, slopes.decay, slopes.gate, slopes.noise, d_weight, d_bias)
        return (*found, None, None, None, None)


def _affine(
    norm: _Norm, x: Tensor, weight: Tensor | None, bias: Tensor | None, backend: Backend
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean and 1/std per channel in float64, and scale and shift rounded as in torch."""
    module, dtype = norm.module, membrane_dtype(x.dtype)
    if norm.of_the_batch:
        if x[:, :, 0].numel() <= 1:
            raise ValueError(
                "batch normalisation in training needs more than one value per channel, got "
                f"{list(x.shape)}; use a larger batch, or model.eval()."
            )
        mean, var = backend.moments(x)
        norm.mean, norm.var = mean, var
    else:
        assert module.running_mean is not None and module.running_var is not None
        mean, var = module.running_mean, module.running_var
    rstd = torch.rsqrt(var + module.eps)
    scale = rstd.to(dtype) if weight is None else (weight.to(rstd.dtype) * rstd).to(dtype)
    shift = -mean.double() * scale.double()
    if bias is not None:
        shift = shift + bias.double()
    return mean.double(), rstd.double(), scale, shift.to(dtype)
