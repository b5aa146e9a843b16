"""Lock of a run folder: one process writes to it at a time.

The lock is the file ``.lock`` in the folder. It is held with flock(2), which the kernel releases
when the owner ends, and it names the owner: host, process id and start time. Where a file system
has no flock, or another host wrote the file, the owner's name decides. A process may lock a folder
again that it has locked in the same thread.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spikeguard.storage.owner import Owner

__all__ = ["LOCK", "FolderLocked", "holds_nothing", "locked"]

LOCK = ".lock"
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
_held: dict[Path, int] = {}  # the folders that this process has locked, and the threads


class FolderLocked(ValueError):
    """Another process or thread writes to the folder."""


@contextmanager
def locked(folder: str | Path, *, if_writable: bool = False) -> Iterator[None]:
    """Hold the lock of a folder inside the block.

    The folder is created if it is missing, and removed at the end if it then holds nothing.

    Args:
        folder: The folder to write to.
        if_writable: Hold no lock, instead of an error, where the folder cannot be written. A
            command whose results are all stored can then still read them.

    Raises:
        FolderLocked: If another process or thread holds the lock.
        OSError: If the folder cannot be written; nothing was changed.
    """
    folder = Path(folder)
    place = folder.absolute().resolve()
    if _held.get(place) == threading.get_ident():
        yield  # inside another block of this thread
        return
    if place in _held:
        raise FolderLocked(f"{folder}: another thread of this process writes to it.")
    made, descriptor = [], None
    try:
        try:
            made = _make(place)
            descriptor = _acquire(place / LOCK, folder)
            _held[place] = threading.get_ident()
        except OSError as error:
            if not (if_writable and error.errno in _NOT_WRITABLE):
                raise
        yield
    finally:
        if descriptor is not None:
            del _held[place]
            (place / LOCK).unlink(missing_ok=True)
            os.close(descriptor)
        for each in reversed(made):
            with suppress(OSError):  # not empty: something was written
                each.rmdir()


def holds_nothing(folder: Path) -> bool:
    """Whether a folder has no entry, or only a lock."""
    return all(entry.name == LOCK for entry in folder.iterdir())


def _make(folder: Path) -> list[Path]:
    """Create a folder and its parents; return those that were missing, from the top."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    made = []
    for each in reversed(missing):
        try:
            each.mkdir()
        except FileExistsError:  # another process was faster
            continue
        made.append(each)
    return made


def _acquire(file: Path, folder: Path) -> int:
    """Lock a file and write this process's name into it; return its descriptor."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another process has just removed the empty folder
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            _flock(descriptor, file, folder)
            if not _is_still(file, descriptor):  # the last owner has just removed it
                os.close(descriptor)
                continue
            _require_dead(_owner(descriptor), file, folder)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(Owner.this_process().to_dict()).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _flock(descriptor: int, file: Path, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderLocked(_in_use(_owner(descriptor), file, folder)) from None
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise


def _is_still(file: Path, descriptor: int) -> bool:
    """Whether a path leads to the open file."""
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> Owner:
    """Return the name in a lock file; unknown if there is none or it was written in part."""
    try:
        return Owner.of(json.loads(os.pread(descriptor, 4096, 0)))
    except ValueError:
        return Owner()


def _require_dead(owner: Owner, file: Path, folder: Path) -> None:
    """Reject the lock of a process that may still run."""
    if owner == Owner():
        return
    if not owner.is_here or (owner.pid != os.getpid() and owner.runs()):
        raise FolderLocked(_in_use(owner, file, folder))


def _in_use(owner: Owner, file: Path, folder: Path) -> str:
    host, pid = owner.host, owner.pid
    if host is None or owner.is_here:
        who = "another process" if pid is None else f"process {pid}"
        return f"{folder}: {who} writes to it; wait until it has ended, or choose another folder."
    return (
        f"{folder}: process {pid} on {host} writes to it; if that process has ended, remove {file}."
    )
