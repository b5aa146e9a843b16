"""The membrane recurrence over T, forward and backward: one signature, several kernels.

``integrate_and_fire`` checks its input once and hands it to a kernel. ``reference`` is the
definition; ``multistep`` computes the same with one autograd node and a fraction of the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from spikeguard.kernels.multistep import multistep
from spikeguard.kernels.reference import Firing, Reset, membrane_dtype, reference, reset_potential

__all__ = [
    "KERNELS",
    "Firing",
    "Reset",
    "integrate_and_fire",
    "multistep",
    "reference",
    "reset_potential",
    "use_kernel",
]

KERNELS: dict[str, Callable[..., Firing]] = {"reference": reference, "multistep": multistep}
_default = "multistep"


def integrate_and_fire(
    current: Tensor,
    *,
    decay: float | Tensor,
    surrogate: Callable[[Tensor], Tensor],
    v_th: float = 1.0,
    gate: Tensor | None = None,
    noise: Tensor | None = None,
    reset: Reset = "hard",
    detach_reset: bool = False,
    potentials: bool = True,
    kernel: str | None = None,
) -> Firing:
    r"""Integrate an input current over T steps and fire.

    .. math::
        v[t] = \lambda[t]\,u[t-1] + g[t]\,I[t] + n[t],\quad
        s[t] = H(v[t] - v_{th}),\quad u[t] = reset(v[t], s[t])

    Args:
        current: Input I [T, *N], floating point. Below float32 the membrane is kept in float32.
        decay: Leak factor, usually in [0, 1]: a number, a scalar tensor, or a tensor with as many
            axes as ``current`` that broadcasts to it ([T, 1, ...] per step, [1, 1, C, 1, 1] per
            channel).
        surrogate: Derivative h(v - v_th) that stands in for H' in the backward pass.
        v_th: Threshold, in membrane units, > 0. A tie fires.
        gate: Factor g on the input, shaped like a tensor ``decay``; or None for 1.
        noise: Additive noise n [T, *N], in membrane units; or None.
        reset: "hard" (u = 0 after a spike) or "soft" (v_th is subtracted).
        detach_reset: Block the gradient that flows through s into u.
        potentials: Also return v; switch off where nobody reads it.
        kernel: Name of a kernel; None takes the default (see ``use_kernel``).

    Returns:
        ``Firing(spikes, v)``: spikes [T, *N] in the precision of ``current``, v [T, *N] before
        reset in the membrane's; both differentiable in current, decay, gate and noise.

    Raises:
        ValueError: On a current without steps or of integers, shapes that do not fit, or an unknown
            reset or kernel.

    Source: Wu et al., 2018, doi:10.3389/fnins.2018.00331 (hard reset); TGO (arXiv:2602.20548) Eqs.
        1
    to 3 and 15 (noise).
    """
    if current.ndim < 1 or len(current) == 0:
        raise ValueError(
            f"integrate_and_fire: current is [T, *N] with T >= 1, got shape {tuple(current.shape)}."
        )
    if not current.is_floating_point():
        raise ValueError(
            f"integrate_and_fire: current must be floating point, got {current.dtype}; "
            "use current.float()."
        )
    if reset not in ("hard", "soft"):
        raise ValueError(f"integrate_and_fire: reset is 'hard' or 'soft', got {reset!r}.")
    dtype = membrane_dtype(current.dtype)
    factor = torch.as_tensor(decay, dtype=dtype, device=current.device)
    _require_broadcast("decay", factor, current)
    if gate is not None:
        gate = gate.to(dtype)
        _require_broadcast("gate", gate, current)
    if noise is not None:
        noise = noise.to(dtype)
        if noise.shape != current.shape:
            raise ValueError(
                f"integrate_and_fire: noise must be shaped like current {tuple(current.shape)}, "
                f"got {tuple(noise.shape)}."
            )
    name = _default if kernel is None else kernel
    if name not in KERNELS:
        raise ValueError(
            f"integrate_and_fire: unknown kernel {name!r}; known: {', '.join(KERNELS)}."
        )
    arguments = (current, factor, gate, noise, float(v_th), reset, detach_reset, surrogate)
    return KERNELS[name](*arguments, potentials=potentials)


@contextmanager
def use_kernel(name: str) -> Iterator[None]:
    """Make ``name`` the default kernel inside the block (for comparisons and tests)."""
    global _default
    if name not in KERNELS:
        raise ValueError(f"use_kernel: unknown kernel {name!r}; known: {', '.join(KERNELS)}.")
    before, _default = _default, name
    try:
        yield
    finally:
        _default = before


def _require_broadcast(what: str, x: Tensor, current: Tensor) -> None:
    fits = x.ndim == 0 or (
        x.ndim == current.ndim
        and all(a in (1, b) for a, b in zip(x.shape, current.shape, strict=True))
    )
    if not fits:
        raise ValueError(
            f"integrate_and_fire: {what} must be a scalar or broadcast to current "
            f"{tuple(current.shape)} axis by axis, got {tuple(x.shape)}."
        )
