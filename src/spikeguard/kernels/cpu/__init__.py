"""The compiled C++ kernel for the CPU."""

from __future__ import annotations

from spikeguard.kernels.cpu.backend import BACKEND
from spikeguard.kernels.cpu.library import why_not

__all__ = ["BACKEND", "why_not"]
