"""Lock of a run folder: one process writes to it at a time.

The lock is the file ``.lock`` in the folder. It is held with flock(2), which the kernel releases
when the owner ends, and it names the owner: host, process id and start time. Where a file system
has no flock, or another host wrote the file, the owner's name decides. A process may lock a folder
again that it has locked in the same thread.

Ranks that work on the same results join a folder instead of locking it; see ``members``. Whoever
locks looks for members afterwards, and a member for a lock, so that one of two sees the other.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spikeguard.storage.members import RANKS, FolderLocked, Members
from spikeguard.storage.owner import Owner

__all__ = ["LOCK", "FolderLocked", "holds_nothing", "joined", "locked"]

LOCK = ".lock"
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
_PATIENCE = (
    60.0  # seconds that a rank waits for the lock of another folder, which ranks hold briefly
)
_held: dict[Path, int] = {}  # the folders that this process has locked or joined, and the threads
_joined: set[Path] = set()  # those that it has joined


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
            descriptor = _acquire_patiently(place / LOCK, folder)
            _held[place] = threading.get_ident()
            Members(place).require_none(folder)
        except OSError as error:
            if not (if_writable and error.errno in _NOT_WRITABLE):
                raise
        yield
    finally:
        if descriptor is not None:
            _held.pop(place, None)
            (place / LOCK).unlink(missing_ok=True)
            os.close(descriptor)
        _remove_empty(made)


@contextmanager
def joined(folder: str | Path, rank: str, settings: dict[str, str]) -> Iterator[bool]:
    """Write to a folder together with ranks of the same settings inside the block.

    Inside the block ``locked`` admits this process to the folder, and waits for other folders.

    Args:
        folder: The folder; created if it is missing, removed at the end if it then holds nothing.
        rank: Who this process is, for messages.
        settings: What all members have in common, by name.

    Yields:
        Whether no other member was there.

    Raises:
        FolderLocked: If a process that is no member writes to the folder, or a member has other
            settings; the message names them.
        OSError: If the folder cannot be written.
    """
    folder = Path(folder)
    place = folder.absolute().resolve()
    members, made = Members(place), _make(place)
    try:
        with members.join(folder, rank, settings) as first:
            _require_unlocked(place / LOCK, folder)
            _held[place] = threading.get_ident()
            _joined.add(place)
            try:
                yield first
            finally:
                del _held[place]
                _joined.discard(place)
    finally:
        with suppress(OSError):  # not empty: other members, logs
            (place / RANKS).rmdir()
        _remove_empty(made)


def holds_nothing(folder: Path) -> bool:
    """Whether a folder has no entry, or only a lock and ranks."""
    return all(entry.name in (LOCK, RANKS) for entry in folder.iterdir())


def _remove_empty(made: list[Path]) -> None:
    for each in reversed(made):
        with suppress(OSError):  # not empty: something was written
            each.rmdir()


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


def _acquire_patiently(file: Path, folder: Path) -> int:
    """As ``_acquire``; a rank waits for the others, which hold such a lock for a moment."""
    until = time.monotonic() + (_PATIENCE if _joined else 0.0)
    while True:
        try:
            return _acquire(file, folder)
        except FolderLocked:
            if time.monotonic() >= until:
                raise
        time.sleep(0.1)


def _require_unlocked(file: Path, folder: Path) -> None:
    """Reject a folder that a process has locked that may still run."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        _flock(descriptor, file, folder)
        _require_dead(_owner(descriptor), file, folder)
    finally:
        os.close(descriptor)


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
