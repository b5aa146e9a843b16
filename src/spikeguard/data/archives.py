"""Extract named files from a tar archive, and nothing else."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from spikeguard.storage.atomic_files import atomic

__all__ = ["extract"]

_CHUNK = 1 << 20


def extract(archive: Path, folder: Path, members: Mapping[str, int]) -> None:
    """Write the regular files ``<folder name>/<member>`` of a gzipped tar to ``folder``.

    The archive controls nothing: the caller gives names and sizes, each file is written under its
    own name, and all other members are ignored. The files get their final names together, after the
    archive has been read up to the checksum at its end.

    Args:
        archive: The ``.tar.gz`` file.
        folder: Target folder; its last component is the folder name inside the archive.
        members: Name and size in bytes of each wanted file.

    Raises:
        ValueError: If a wanted file is missing, is a link or a device, or has another size, or
            if the archive is damaged; no file is written then.
    """
    missing = dict(members)
    try:
        with tarfile.open(archive, "r:gz") as tar, ExitStack() as pending:
            for entry in tar:
                parent, _, name = entry.name.removeprefix("./").rpartition("/")
                if parent != folder.name or name not in missing:
                    continue
                size = missing.pop(name)
                if not entry.isreg() or entry.size != size:
                    raise ValueError(
                        f"{archive}: rejected: {entry.name} should be a regular file of {size} "
                        f"bytes, got type {entry.type!r} with {entry.size}; fetch it again."
                    )
                _copy(tar, entry, pending.enter_context(atomic(folder / name)))
            if missing:
                raise ValueError(f"{archive}: {', '.join(missing)} is not in the archive.")
            _read_to_the_end(tar)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{archive}: not a whole archive ({error}); fetch it again.") from error


def _copy(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(entry)
    assert source is not None  # a regular file has content
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)


def _read_to_the_end(tar: tarfile.TarFile) -> None:
    """Read the rest: gzip compares the checksum when it reaches the end."""
    assert tar.fileobj is not None  # open
    while tar.fileobj.read(_CHUNK):
        pass
