"""Atomic folder replacement: a process killed at any moment leaves a complete folder.

The new folder is written as ``.NAME.new`` and flushed to disk. Two renames then replace the old
folder: ``NAME`` to ``.NAME.old``, ``.NAME.new`` to ``NAME``. ``NAME`` is missing only between the
two renames, when both other folders are complete. A reader tries :func:`candidate_paths` in order;
the next writer removes the leftovers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["candidate_paths", "recover", "replace_folder", "write_synced"]


@contextmanager
def replace_folder(folder: Path, complete: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty folder to fill; it replaces ``folder`` if the block raises no error.

    Args:
        folder: The folder to create or replace.
        complete: Returns whether a folder is complete; called on the leftovers of a killed writer.

    Raises:
        OSError: If the new folder cannot be written; ``folder`` is unchanged.
    """
    _, fresh, old = candidate_paths(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder, complete)
    try:
        fresh.mkdir()
        yield fresh
        _sync(fresh)
        if folder.exists():
            os.rename(folder, old)  # noqa: PTH104 - the two renames are spelled out
        os.rename(fresh, folder)  # noqa: PTH104
        _sync(folder.parent)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)  # noqa: PTH104
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path, complete: Callable[[Path], bool]) -> None:
    """Complete or undo the write of a killed process; ``folder`` is then complete or absent."""
    _, fresh, old = candidate_paths(folder)
    if not folder.exists():
        for candidate in (fresh, old):
            if candidate.exists() and complete(candidate):
                os.rename(candidate, folder)  # noqa: PTH104
                break
    for leftover in (fresh, old):
        if leftover.exists():
            shutil.rmtree(leftover)


def candidate_paths(folder: Path) -> tuple[Path, Path, Path]:
    """Return the paths that can hold the content of ``folder``: itself, the new, the old one."""
    beside = folder.parent  # "." and "/" have no name to replace
    return folder, beside / f".{folder.name}.new", beside / f".{folder.name}.old"


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and flush it to disk."""
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _sync(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
