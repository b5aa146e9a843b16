"""The recurrence over all T as one autograd.Function in pure torch: fast enough to be the default.

It saves its inputs and nothing else; the backward pass runs the recurrence once more to get the
potentials back. Time buys memory: autograd through the plain loop keeps several tensors of the size
of the input current, this keeps the current alone. It can be differentiated once; for second
derivatives take ``use_kernel("reference")``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from spikeguard.kernels.reference import Firing, Reset, membrane_dtype, reset_potential, step

__all__ = ["multistep"]


def multistep(
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
) -> Firing:
    """Pure torch, no compiler needed: all T as one autograd node that keeps its input alone."""
    options = (v_th, reset, detach_reset, surrogate, potentials)
    return Firing(*_MultiStep.apply(current, decay, gate, noise, options))  # type: ignore[no-untyped-call]


class _MultiStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, decay, gate, noise, options):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        v_th, reset, _, _, potentials = options
        ctx.save_for_backward(current, decay, gate, noise)
        ctx.options = options
        ctx.set_materialize_grads(False)
        spikes = torch.empty(current.shape, dtype=current.dtype, device=current.device)
        v = _empty_like_membrane(current) if potentials else None
        for t, v_t in _potentials(current, decay, gate, noise, v_th, reset):
            torch.ge(v_t, v_th, out=spikes[t])
            if v is not None:
                v[t] = v_t
        return spikes, v

    @staticmethod
    def backward(ctx, grad_spikes, grad_v):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        if torch.is_grad_enabled():  # the caller wrote create_graph=True
            raise RuntimeError(
                "multistep: this kernel is differentiable once; run the model inside "
                "spikeguard.kernels.use_kernel('reference') for second derivatives."
            )
        current, decay, gate, noise = ctx.saved_tensors
        v_th, reset, detach_reset, surrogate, _ = ctx.options
        if grad_spikes is None and grad_v is None:
            return None, None, None, None, None
        v = _empty_like_membrane(current)
        for t, v_t in _potentials(current, decay, gate, noise, v_th, reset):
            v[t] = v_t
        # dv[t] is dL/dv[t] in full: from outside, through the spike s[t] and through u[t].
        dv = torch.empty_like(v)
        du: Tensor | None = None
        for t in reversed(range(len(v))):
            ds = None if grad_spikes is None else grad_spikes[t].to(v.dtype)
            if du is not None and not detach_reset:
                through_reset = du * (-v[t] if reset == "hard" else -v_th)
                ds = through_reset if ds is None else ds + through_reset
            if ds is None:
                dv[t] = 0
            else:
                torch.mul(ds, surrogate(v[t] - v_th), out=dv[t])
            if grad_v is not None:
                dv[t] += grad_v[t]
            if du is not None:
                dv[t] += du * (1 - (v[t] >= v_th).to(v.dtype)) if reset == "hard" else du
            du = dv[t] * step(decay, t)
        needs = ctx.needs_input_grad
        d_current = d_decay = d_gate = d_noise = None
        if needs[0]:
            d_current = (dv if gate is None else dv * gate).to(current.dtype)
        if needs[1]:
            d_decay = _decay_gradient(dv, v, decay, v_th, reset)
        if needs[2]:
            d_gate = (dv * current).sum_to_size(gate.shape)
        if needs[3]:
            d_noise = dv
        return d_current, d_decay, d_gate, d_noise, None


def _potentials(
    current: Tensor,
    decay: Tensor,
    gate: Tensor | None,
    noise: Tensor | None,
    v_th: float,
    reset: Reset,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (t, v[t]) of the recurrence, in the order of operations of the reference."""
    dtype = membrane_dtype(current.dtype)
    u: Tensor | None = None
    for t in range(len(current)):
        drive = current[t].to(dtype)
        if gate is not None:
            drive = step(gate, t) * drive
        v = drive if u is None else step(decay, t) * u + drive
        if noise is not None:
            v = v + noise[t]
        yield t, v
        u = reset_potential(v, (v >= v_th).to(dtype), v_th, reset)


def _decay_gradient(dv: Tensor, v: Tensor, decay: Tensor, v_th: float, reset: Reset) -> Tensor:
    """dL/d decay[t] = sum of u[t-1] dL/dv[t] over the axes along which decay is shared."""
    u = reset_potential(v[:-1], (v[:-1] >= v_th).to(v.dtype), v_th, reset)
    product = torch.zeros_like(dv)
    torch.mul(u, dv[1:], out=product[1:])
    return product.sum_to_size(decay.shape)


def _empty_like_membrane(current: Tensor) -> Tensor:
    return torch.empty(current.shape, dtype=membrane_dtype(current.dtype), device=current.device)
