"""Replace a whole folder so that a kill at any moment leaves the old one or the new one, complete.

The new folder is written as ``.NAME.new``, flushed to the disk, and takes the old one's place by
two renames: ``NAME`` to ``.NAME.old``, ``.NAME.new`` to ``NAME``. Only between the two is there no
``NAME``, and then both others are complete: a reader tries :func:`places` in turn, the next writer
tidies up.
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
    """Give an empty folder to fill; it takes the place of ``folder`` when the block ends well.

    Args:
        folder: The folder to create or replace.
        complete: Whether a folder is whole; asked of what an earlier, killed writer left behind.

    Raises:
        OSError: If it cannot be written; ``folder`` is what it was.
    """
    _, fresh, old = candidate_paths(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder, complete)
    try:
        fresh.mkdir()
        yield fresh
        _sync(fresh)
        if folder.exists():
            os.rename(folder, old)  # noqa: PTH104 - the moments that matter are spelled out
        os.rename(fresh, folder)  # noqa: PTH104
        _sync(folder.parent)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)  # noqa: PTH104
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path, complete: Callable[[Path], bool]) -> None:
    """Finish or undo what a killed writer began; afterwards ``folder`` is whole or absent."""
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
    """Return where the content of ``folder`` can be: itself, the new one, the old one."""
    return folder, folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and flush it to the disk."""
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _sync(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
