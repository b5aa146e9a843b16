"""The table of kernels, whether they can run on this machine, and which one is the default."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import torch

from spikeguard.kernels.fused import Backend
from spikeguard.kernels.fused import fire as _fire
from spikeguard.kernels.multistep import multistep
from spikeguard.kernels.reference import Firing, reference

__all__ = ["KERNELS", "fusing", "why_not", "unfused", "as_defined", "use_kernel", "default_kernel"]


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


_FUSED = {"cpu": "cpu", "triton": "cuda"}  # kernel -> type of the device where it is the default


_chosen: str | None = None


_plain = False


def fusing(device: torch.device) -> bool:
    """Whether the default kernel on ``device`` computes batch normalisation in the same pass."""
    return default_kernel(device) in _FUSED


def why_not(name: str) -> str | None:
    """Return the reason why a kernel cannot run on this machine; None if it can."""
    if name not in _FUSED:
        return None
    reason: str | None = import_module(f"spikeguard.kernels.{name}").why_not()
    return reason


@contextmanager
def unfused() -> Iterator[None]:
    """Run every layer on its own inside the block: nothing fused, no memory layout changed.

    Scores are computed this way; the search for adversarial inputs may use fused kernels.
    """
    global _plain
    before, _plain = _plain, True
    try:
        with use_kernel("reference" if _chosen == "reference" else "multistep"):
            yield
    finally:
        _plain = before


def as_defined(device: torch.device) -> bool:
    """Whether stateless layers run as torch defines them.

    They do inside ``unfused`` and under the kernel ``reference``.
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
    """Return the name of the default kernel on ``device``.

    The first of: the kernel given to ``use_kernel``, the kernel named by the environment variable
    SPIKEGUARD_KERNEL, and the fastest available kernel.

    Raises:
        ValueError: If the variable names an unknown or unavailable kernel.
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
