"""Locks of the files that the workers of a sweep share; the kernel releases those of a killed one.

Optuna's own locks are files that a killed process leaves behind, for half a minute.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages.journal import JournalFileBackend

__all__ = ["exclusive", "has_locks", "journal_backend"]

_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def exclusive(file: Path) -> Iterator[None]:
    """Hold the lock of a file inside the block; wait for it. Without flock(2) there is no lock."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def has_locks(folder: Path) -> bool:
    """Whether the file system of a folder has flock(2)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return _lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def journal_backend(file: Path) -> JournalFileBackend:
    """Return Optuna's journal in a file, safe against workers that are killed while they write.

    The lock of a killed worker is released at once, and a line that it wrote in part is cut off
    before the next one is appended.
    """
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        """Lock of the journal, held with flock(2)."""

        _descriptor: int | None = None

        def acquire(self) -> bool:
            descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(descriptor)
                _cut_partial_line(file)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
            return True

        def release(self) -> None:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    return JournalFileBackend(str(file), Lock(str(file)) if has_locks(file.parent) else None)


def _lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file; return whether its file system has locks."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        return False
    return True


def _cut_partial_line(file: Path) -> None:
    """Cut off what follows the last line feed of a file."""
    with file.open("rb+") as handle:
        end = handle.seek(0, os.SEEK_END)
        if end == 0:
            return
        handle.seek(end - 1)
        if handle.read(1) == b"\n":
            return
        handle.seek(0)
        handle.truncate(handle.read().rfind(b"\n") + 1)
