"""The Triton kernel for NVIDIA GPUs."""

from __future__ import annotations

from spikeguard.kernels.triton.backend import BACKEND, why_not

__all__ = ["BACKEND", "why_not"]
