"""The C library's allocator in processes that are ours: memory is kept from pass to pass."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
_NEVER, _LARGEST = 2**31 - 1, 32 * 2**20  # bytes; the second is the most that glibc takes


def keep_freed_memory() -> None:
    """Keep what one pass through a network frees for the next, instead of giving it back.

    A pass frees tensors of some megabytes and the next one asks for them again; given back to the
    system in between, every page is cleared and mapped anew. Only for a process that is
    SpikeGuard's own. Where the C library is not glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # no dlopen, Windows, another C library
        return
    mallopt(_TRIM_THRESHOLD, _NEVER)
    mallopt(_MMAP_THRESHOLD, _LARGEST)
