"""The recurrence over all T steps as one autograd.Function in pure torch.

It runs where no compiled kernel can. Only the inputs are saved; the backward pass runs the
recurrence again to recompute the potentials. Autograd through the plain loop keeps several tensors
of the size of the input current, this kernel keeps the current alone. Neurons are processed in
chunks whose potentials of all T steps stay in the cache, and temporaries are reused. The kernel is
differentiable once; for second derivatives use ``use_kernel("reference")``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikeguard.kernels.layout import Layout
from spikeguard.kernels.reference import Firing, Reset, membrane_dtype, reset_potential, step

__all__ = ["multistep"]

_CHUNK = 32768  # neurons per thread: torch's own grain size


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
    T: int | None = None,
) -> Firing:
    """Pure torch, needs no compiler: one autograd node for all T that saves only its inputs."""
    steps = len(current) if T is None else T
    options = (v_th, reset, detach_reset, surrogate, potentials, steps)
    return Firing(*_MultiStep.apply(current, decay, gate, noise, options))  # type: ignore[no-untyped-call]


class _Chunk(NamedTuple):
    """Some of the neurons, [T, *n] each; the current may hold one step that is repeated."""

    current: Tensor
    decay: Tensor
    gate: Tensor | None
    noise: Tensor | None
    more: tuple[Any, ...]


class _MultiStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, decay, gate, noise, options):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        v_th, reset, _, _, potentials, T = options
        ctx.save_for_backward(current, decay, gate, noise)
        ctx.options = options
        ctx.set_materialize_grads(False)
        layout = Layout.of(current)
        spikes = layout.empty(current, T, current.dtype)
        v = layout.empty(current, T, membrane_dtype(current.dtype)) if potentials else None
        for chunk in _chunks(layout, current, decay, gate, noise, spikes, v):
            fired, seen = chunk.more
            rows = _rows(chunk.current, T) if seen is None else seen.unbind(0)
            for t in _integrate(chunk, v_th, reset, rows):
                torch.ge(rows[t], v_th, out=fired[t])
        return spikes, v

    @staticmethod
    def backward(ctx, grad_spikes, grad_v):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        if torch.is_grad_enabled():  # the caller wrote create_graph=True
            raise RuntimeError(
                "multistep: this kernel is differentiable once; run the model inside "
                "spikeguard.kernels.use_kernel('reference') for second derivatives."
            )
        current, decay, gate, noise = ctx.saved_tensors
        if grad_spikes is None and grad_v is None:
            return None, None, None, None, None
        needs, layout, T = ctx.needs_input_grad, Layout.of(current), ctx.options[-1]
        dtype = membrane_dtype(current.dtype)
        d_current = layout.empty(current, len(current), current.dtype) if needs[0] else None
        d_noise = layout.empty(current, T, dtype) if needs[3] else None
        d_decay = torch.zeros_like(decay) if needs[1] else None
        d_gate = torch.zeros_like(gate) if needs[2] else None
        given = (grad_spikes, grad_v, d_current, d_noise)
        for chunk in _chunks(layout, current, decay, gate, noise, *given):
            _differentiate(chunk, ctx.options, d_decay, d_gate)
        return d_current, d_decay, d_gate, d_noise, None


def _integrate(chunk: _Chunk, v_th: float, reset: Reset, rows: Sequence[Tensor]) -> Iterator[int]:
    """Write v[t] into rows[t] with the order of operations of the reference; yield each t."""
    u = torch.empty_like(rows[0])
    for t, v in enumerate(rows):
        drive = step(chunk.current, t).to(v.dtype)
        if chunk.gate is not None:
            drive = step(chunk.gate, t) * drive
        if t == 0:
            v.copy_(drive)
        else:
            torch.mul(u, step(chunk.decay, t), out=v).add_(drive)
        if chunk.noise is not None:
            v.add_(chunk.noise[t])
        yield t
        if reset == "hard":
            torch.lt(v, v_th, out=u).mul_(v)
        else:
            torch.ge(v, v_th, out=u).mul_(-v_th).add_(v)


def _differentiate(
    chunk: _Chunk, options: tuple[Any, ...], d_decay: Tensor | None, d_gate: Tensor | None
) -> None:
    """Write the derivatives for current and noise; accumulate those for decay and gate."""
    v_th, reset, detach_reset, surrogate, _, T = options
    grad_spikes, grad_v, d_current, d_noise = chunk.more
    dtype = membrane_dtype(chunk.current.dtype)
    v = [torch.empty_like(chunk.current[0], dtype=dtype) for _ in range(T)]
    for _ in _integrate(chunk, v_th, reset, v):
        pass
    du, kept, through = (torch.empty_like(v[0]) for _ in range(3))
    total = torch.zeros_like(v[0]) if len(chunk.current) < T else None
    for t in reversed(range(T)):
        last = t == T - 1
        # dv is the total dL/dv[t]: direct, through the spike s[t] and through u[t].
        dv = torch.zeros_like(v[0]) if grad_spikes is None else grad_spikes[t].to(dtype, copy=True)
        if not last and not detach_reset:
            if reset == "hard":
                dv.sub_(torch.mul(du, v[t], out=through))
            else:
                dv.sub_(du, alpha=v_th)
        dv.mul_(surrogate(v[t] - v_th))
        if grad_v is not None:
            dv.add_(grad_v[t])
        if not last:
            dv.add_(du if reset == "soft" else torch.lt(v[t], v_th, out=kept).mul_(du))
        if d_noise is not None:
            d_noise[t] = dv
        if d_decay is not None and t > 0:
            fired = (v[t - 1] >= v_th).to(dtype)
            _add(d_decay, t, dv * reset_potential(v[t - 1], fired, v_th, reset))
        if d_gate is not None:
            _add(d_gate, t, dv * step(chunk.current, t))
        if d_current is not None:
            d_drive = dv if chunk.gate is None else dv * step(chunk.gate, t)
            if total is None:
                d_current[t] = d_drive
            else:
                total.add_(d_drive)
        if t > 0:
            torch.mul(dv, step(chunk.decay, t), out=du)
    if total is not None and d_current is not None:
        d_current[0] = total


def _chunks(layout: Layout, *tensors: Tensor | None) -> Iterator[_Chunk]:
    """Split current, decay, gate, noise and further tensors into chunks that fit the cache.

    If decay or gate differs between neurons of one step, there is one chunk.
    """
    current, decay, gate, noise, *more = tensors
    assert current is not None and decay is not None
    n = current[0].numel()
    sides = [side for side in (decay, gate) if side is not None]
    if n == 0 or any(side.numel() > max(1, len(side) if side.ndim else 1) for side in sides):
        yield _Chunk(current, decay, gate, noise, tuple(more))
        return

    def flat(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        x = layout.dense(x)
        return (x.permute(0, 1, 3, 4, 2) if layout.channels_last else x).reshape(len(x), -1)

    decay, gate = (s if s is None or s.ndim == 0 else s.reshape(-1, 1) for s in (decay, gate))
    assert decay is not None
    whole = [flat(x) for x in (current, noise, *more)]
    for at in range(0, n, _CHUNK * torch.get_num_threads()):
        end = at + _CHUNK * torch.get_num_threads()
        piece, noise_piece, *rest = (None if x is None else x[:, at:end] for x in whole)
        assert piece is not None
        yield _Chunk(piece, decay, gate, noise_piece, tuple(rest))


def _rows(current: Tensor, T: int) -> list[Tensor]:
    """Return one buffer for the potentials of every step; earlier steps are not needed."""
    return [torch.empty_like(current[0], dtype=membrane_dtype(current.dtype))] * T


def _add(total: Tensor, t: int, product: Tensor) -> None:
    """Add step t to the derivative with respect to decay or gate."""
    room = total if total.ndim == 0 else total[t if len(total) > 1 else 0]
    room += product.sum() if room.numel() == 1 else product.sum_to_size(room.shape)
