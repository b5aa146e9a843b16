r"""The definition of the membrane recurrence. Every other kernel is tested against this file.

.. math::
    v[t] &= \lambda[t]\, u[t-1] + g[t]\, I[t] + n[t], \qquad u[-1] = 0 \\
    s[t] &= H(v[t] - v_{th}) \qquad (\text{a tie } v = v_{th} \text{ fires}) \\
    u[t] &= (1 - s[t])\, v[t] \ \text{(hard reset)} \quad\text{or}\quad
            v[t] - v_{th}\, s[t] \ \text{(soft)}

The derivative of H is the surrogate. With ``detach_reset`` no gradient flows through s into u.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["Firing", "Reset", "membrane_dtype", "reference", "reset_potential", "step"]

Reset = Literal["hard", "soft"]


class Firing(NamedTuple):
    """Result of a kernel: ``spikes`` [T, *N] in {0, 1}; ``v`` [T, *N] before reset, or None."""

    spikes: Tensor
    v: Tensor | None


class _Step(torch.autograd.Function):
    """H(x) forward, grad * h(x) backward."""

    @staticmethod
    def forward(ctx, x, surrogate):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate(x), None


def membrane_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the membrane potential: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def reset_potential(v: Tensor, s: Tensor, v_th: float, reset: Reset) -> Tensor:
    """Return u, the membrane potential after reset."""
    return v * (1 - s) if reset == "hard" else v - v_th * s


def step(x: Tensor, t: int) -> Tensor:
    """Return step t of a per-step tensor, or the one value shared by all steps."""
    if x.ndim == 0:
        return x
    return x[t if len(x) > 1 else 0]


def reference(
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
    """The definition: a plain loop over T; arguments as prepared by ``integrate_and_fire``."""
    membrane = current.to(membrane_dtype(current.dtype))
    drive = membrane if gate is None else gate * membrane
    u = torch.zeros_like(drive[0])
    spikes, v = [], []
    for t in range(len(current)):
        v_t = step(decay, t) * u + drive[t]
        if noise is not None:
            v_t = v_t + noise[t]
        s: Tensor = _Step.apply(v_t - v_th, surrogate)  # type: ignore[no-untyped-call]
        u = reset_potential(v_t, s.detach() if detach_reset else s, v_th, reset)
        spikes.append(s)
        v.append(v_t)
    return Firing(torch.stack(spikes).to(current.dtype), torch.stack(v) if potentials else None)
