"""Allocator settings for SpikeGuard's own processes: freed memory is reused between passes."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
_NEVER, _LARGEST = 2**31 - 1, 32 * 2**20  # bytes; the second is the maximum in glibc


def keep_freed_memory() -> None:
    """Keep freed memory in the process for the next forward pass.

    A pass frees tensors of some megabytes and the next one allocates them again. If the memory goes
    back to the operating system in between, every page is cleared and mapped again. Call this only
    in a process that SpikeGuard started. Without glibc it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # no dlopen, Windows, another C library
        return
    mallopt(_TRIM_THRESHOLD, _NEVER)
    mallopt(_MMAP_THRESHOLD, _LARGEST)
