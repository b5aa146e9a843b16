"""Memory that is free for this process, and sizes as people say them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["free_memory", "size_text"]

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")  # version 2; in a container, its own


def free_memory() -> int | None:
    """Return the bytes of main memory that this process can still get; None where it is unknown.

    The smaller of what the system has available and what the limit of the container leaves.
    """
    found = [each for each in (_available(), _left_by_limit()) if each is not None]
    return min(found) if found else None


def _available() -> int | None:
    try:
        for line in _MEMINFO.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_by_limit() -> int | None:
    try:
        limit = (_GROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_GROUP / "memory.current").read_text(encoding="ascii"))
        return None if limit == "max" else max(0, int(limit) - used + _file_cache())
    except (OSError, ValueError):
        return None


def _file_cache() -> int:
    """Return the bytes of a container's file cache that the system can take back."""
    try:
        for line in (_GROUP / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return 0


def size_text(count: float) -> str:
    """Format a number of bytes in MiB or GiB.

    Example:
        >>> size_text(3 * 2**20), size_text(5.25 * 2**30)
        ('3 MiB', '5.2 GiB')
    """
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{round(count / 2**20)} MiB" if count >= 2**20 else "under 1 MiB"
