r"""The membrane recurrence, defined. Every other kernel is tested against this file.

.. math::
    v[t] &= \lambda[t]\, u[t-1] + g[t]\, I[t] + n[t], \qquad u[-1] = 0 \\
    s[t] &= H(v[t] - v_{th}) \qquad (\text{a tie } v = v_{th} \text{ fires}) \\
    u[t] &= (1 - s[t])\, v[t] \ \text{(hard reset)} \quad\text{or}\quad v[t] - v_{th}\, s[t] \ \text{(soft)}

The derivative of H is the surrogate. With ``detach_reset`` no gradient flows through s into u.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["Firing", "Reset", "membrane_dtype", "reference", "reset_potential"]

Reset = Literal["hard", "soft"]


class Firing(NamedTuple):
    """What a kernel returns: ``spikes`` [T, *N] in {0, 1}, and ``v`` [T, *N] before reset, or None."""

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
    """Return the precision the membrane is integrated in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def reset_potential(v: Tensor, s: Tensor, v_th: float, reset: Reset) -> Tensor:
    """Return u, the membrane potential after reset."""
    return v * (1 - s) if reset == "hard" else v - v_th * s


def reference(
    current: Tensor,
    decay: Tensor,
    gate: Tensor | None,
    noise: Tensor | None,
    v_th: float,
    reset: Reset,
    detach_reset: bool,
    surrogate: Callable[[Tensor], Tensor],
) -> Firing:
    """Run the recurrence as a plain loop; arguments as ``integrate_and_fire`` prepares them."""
    membrane = current.to(membrane_dtype(current.dtype))
    drive = membrane if gate is None else gate * membrane
    steady = decay.ndim == 0 or decay.shape[0] == 1
    u = torch.zeros_like(drive[0])
    spikes, potentials = [], []
    for t in range(len(current)):
        v = (decay if decay.ndim == 0 else decay[0 if steady else t]) * u + drive[t]
        if noise is not None:
            v = v + noise[t]
        s = _Step.apply(v - v_th, surrogate)
        u = reset_potential(v, s.detach() if detach_reset else s, v_th, reset)
        spikes.append(s)
        potentials.append(v)
    return Firing(torch.stack(spikes).to(current.dtype), torch.stack(potentials))
