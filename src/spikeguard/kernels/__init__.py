"""The membrane recurrence over T, forward and backward: one signature, several kernels.

``integrate_and_fire`` checks its input once and hands it to a kernel. ``reference`` is the
definition; ``multistep`` computes the same with one autograd node and a fraction of the memory;
``cpu`` and ``triton`` do so in one pass over memory, batch normalisation included. Without a choice
the fastest that is available takes the call, and ``multistep`` what that one does not know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
from torch import Tensor, nn

from spikeguard.kernels.fused import (Backend, can_fuse, fixed_scale, normalised)
from spikeguard.kernels.fused import fire as _fire
from spikeguard.kernels.layout import regular
from spikeguard.kernels.multistep import multistep
from spikeguard.kernels.reference import (Firing, Reset, membrane_dtype, reference, reset_potential)

__all__ = [
    "KERNELS",
    "Firing",
    "Reset",
    "as_defined",
    "averages",
    "can_fuse",
    "default_kernel",
    "fixed_scale",
    "fusing",
    "integrate_and_fire",
    "multistep",
    "normalised",
    "reference",
    "regular",
    "reset_potential",
    "unfused",
    "use_kernel",
    "why_not",
]


def _cpu(*arguments: object, **options: object) -> Firing:
    """Fused C++ kernel for the CPU, compiled at installation: batch norm, all T, one pass."""
    return _fused("cpu", *arguments, **options)


def _triton(*arguments: object, **options: object) -> Firing:
    """Fused Triton kernel for NVIDIA GPUs: batch norm, all T, one pass."""
    return _fused("triton", *arguments, **options)


KERNELS: dict[str, Callable[..., Firing]] = {
    "reference": reference,
    "multistep": multistep,
    "cpu": _cpu,
    "triton": _triton,
}
_FUSED = {"cpu": "cpu", "triton": "cuda"}  # kernel -> the device it is the default on
_chosen: str | None = None
_plain = False


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
    T: int | None = None,
    norm: nn.Module | None = None,
    window: tuple[int, int] | None = None,
) -> Firing:
    r"""Integrate an input current over T steps and fire.

    .. math::
        v[t] = \lambda[t]\,u[t-1] + g[t]\,I[t] + n[t],\quad
        s[t] = H(v[t] - v_{th}),\quad u[t] = reset(v[t], s[t])

    Args:
        current: Input I [T, *N], floating point; or [1, *N] together with ``T``. Below float32 the
            membrane is kept in float32.
        decay: Leak factor, usually in [0, 1]: a number, a scalar tensor, or a tensor with as many
            axes as ``current`` that broadcasts to [T, *N] ([T, 1, ...] per step, [1, 1, C, 1, 1]
            per channel).
        surrogate: Derivative h(v - v_th) that stands in for H' in the backward pass.
        v_th: Threshold, in membrane units, > 0. A tie fires.
        gate: Factor g on the input, shaped like a tensor ``decay``; or None for 1.
        noise: Additive noise n [T, *N], in membrane units; or None.
        reset: "hard" (u = 0 after a spike) or "soft" (v_th is subtracted).
        detach_reset: Block the gradient that flows through s into u.
        potentials: Also return v; switch off where nobody reads it.
        kernel: Name of a kernel; None takes the default (see ``use_kernel``).
        T: Number of steps, where the one step of ``current`` stands for all of them.
        norm: A batch normalisation over axis 2 of ``current``, steps folded into the batch, that
            comes first; a fused kernel does it in the same pass.
        window: Rows and columns over which spikes are averaged, where ``averages`` says that the
            kernel can; the means [T, B, C, h, w] take the place of the spikes.

    Returns:
        ``Firing(spikes, v)``: spikes [T, *N] in the precision of ``current``, v [T, *N] before
        reset in the membrane's; both differentiable in current, decay, gate and noise.

    Raises:
        ValueError: On a current without steps or of integers, shapes that do not fit, or an unknown
            or unavailable reset or kernel.

    Source: Wu et al., 2018, doi:10.3389/fnins.2018.00331 (hard reset); TGO (arXiv:2602.20548) Eqs.
        1 to 3 and 15 (noise).
    """
    shape = _checked_shape(current, T)
    if reset not in ("hard", "soft"):
        raise ValueError(f"integrate_and_fire: reset is 'hard' or 'soft', got {reset!r}.")
    dtype = membrane_dtype(current.dtype)
    if isinstance(decay, Tensor):
        factor = decay.to(current.device, dtype)
    else:  # filled on the device: a copy from the host would make a GPU wait
        factor = torch.full((), decay, dtype=dtype, device=current.device)
    _require_broadcast("decay", factor, shape)
    if gate is not None:
        gate = gate.to(dtype)
        _require_broadcast("gate", gate, shape)
    if noise is not None:
        noise = noise.to(dtype)
        if noise.shape != shape:
            raise ValueError(
                f"integrate_and_fire: noise must be shaped like current {tuple(shape)}, "
                f"got {tuple(noise.shape)}."
            )
    name = _require_kernel(kernel) if kernel is not None else default_kernel(current.device)
    arguments = (factor, gate, noise, float(v_th), reset, detach_reset, surrogate)
    if name in _FUSED:
        known = _backend(name).supports(current.expand(shape), surrogate)
        if known and (norm is None or can_fuse(norm)):
            options = {"T": shape[0], "norm": norm, "window": window}
            return KERNELS[name](current, *arguments, potentials=potentials, **options)
        name = "multistep"
    if window is not None:
        raise ValueError(
            f"integrate_and_fire: kernel {name!r} averages nothing; window is for cpu."
        )
    if norm is not None:
        current = regular(norm(regular(current.flatten(0, 1)))).view(current.shape)
    if name == "multistep":
        return multistep(current, *arguments, potentials=potentials, T=shape[0])
    return KERNELS[name](current.expand(shape), *arguments, potentials=potentials)


def fusing(device: torch.device) -> bool:
    """Whether the kernel that takes a call on ``device`` now can do batch normalisation with it."""
    return default_kernel(device) in _FUSED


def averages(x: Tensor, layer: nn.Module) -> bool:
    """Whether the kernel that takes x [S, B, C, H, W] now can average its spikes as ``layer`` does.

    That is the compiled one, for average pooling that nobody is looking at: see ``windows.takes``.
    """
    if type(layer) is not nn.AvgPool2d or x.ndim != 5 or as_defined(x.device):
        return False
    from spikeguard.kernels.cpu import pooling as windows

    watched = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    return not watched and windows.fits(x, layer)


def why_not(name: str) -> str | None:
    """Say why a kernel cannot be used on this machine; None if it can."""
    if name not in _FUSED:
        return None
    reason: str | None = import_module(f"spikeguard.kernels.{name}").why_not()
    return reason


@contextmanager
def unfused() -> Iterator[None]:
    """Run networks as they are defined inside the block: nothing fused, no memory layout changed.

    Scores are taken so; searches for adversarial inputs may take any path.
    """
    global _plain
    before, _plain = _plain, True
    try:
        with use_kernel("reference" if _chosen == "reference" else "multistep"):
            yield
    finally:
        _plain = before


def as_defined(device: torch.device) -> bool:
    """Whether layers between the neurons are to run as torch has them: inside ``unfused``, and
    wherever the kernel is the reference.
    """
    return _plain or default_kernel(device) == "reference"


@contextmanager
def use_kernel(name: str) -> Iterator[None]:
    """Make ``name`` the default kernel inside the block (for comparisons and tests)."""
    global _chosen
    before, _chosen = _chosen, _require_kernel(name, "use_kernel")
    try:
        yield
    finally:
        _chosen = before


def default_kernel(device: torch.device) -> str:
    """Return the kernel that takes a call on ``device``.

    It is the one that ``use_kernel`` chose, else the one the environment variable SPIKEGUARD_KERNEL
    names, else the fastest that is available.

    Raises:
        ValueError: If the variable names a kernel that is unknown or not available.
    """
    if _chosen is not None:
        return _chosen
    wished = os.environ.get("SPIKEGUARD_KERNEL")
    if wished:
        return _require_kernel(wished, "SPIKEGUARD_KERNEL")
    own = next((name for name, kind in _FUSED.items() if kind == device.type), None)
    return own if own is not None and why_not(own) is None else "multistep"


def _fused(name: str, *arguments: object, **options: object) -> Firing:
    return _fire(_backend(name), *arguments, **options)  # type: ignore[arg-type]


def _backend(name: str) -> Backend:
    module = import_module(f"spikeguard.kernels.{name}")
    backend: Backend = module.BACKEND
    return backend


def _require_kernel(name: str, owner: str = "integrate_and_fire") -> str:
    if name not in KERNELS:
        raise ValueError(f"{owner}: unknown kernel {name!r}; known: {', '.join(KERNELS)}.")
    reason = why_not(name)
    if reason is not None:
        raise ValueError(f"{owner}: kernel {name!r} is not available: {reason}.")
    return name


def _checked_shape(current: Tensor, T: int | None) -> torch.Size:
    """Return [T, *N]."""
    if current.ndim < 1 or len(current) == 0:
        raise ValueError(
            f"integrate_and_fire: current is [T, *N] with T >= 1, got shape {tuple(current.shape)}."
        )
    if not current.is_floating_point():
        raise ValueError(
            f"integrate_and_fire: current must be floating point, got {current.dtype}; "
            "use current.float()."
        )
    if T is None:
        return current.shape
    if T < 1 or len(current) not in (1, T):
        raise ValueError(f"integrate_and_fire: current has 1 or T = {T} steps, got {len(current)}.")
    return torch.Size((T, *current.shape[1:]))


def _require_broadcast(what: str, x: Tensor, shape: torch.Size) -> None:
    fits = x.ndim == 0 or (
        x.ndim == len(shape) and all(a in (1, b) for a, b in zip(x.shape, shape, strict=True))
    )
    if not fits:
        raise ValueError(
            f"integrate_and_fire: {what} must be a scalar or broadcast to current "
            f"{tuple(shape)} axis by axis, got {tuple(x.shape)}."
        )
