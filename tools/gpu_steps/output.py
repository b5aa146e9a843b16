"""The output folder: at most 8 files of at most 16 MiB; what does not fit is packed, cut or named.

The files of the work folder that a later call needs to go on are in ``work.tar.gz.0``, ``.1``, ...
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["LARGEST", "MOST", "deliver", "restore", "violations"]

MOST = 8
LARGEST = 16 << 20
_ARCHIVE = "work.tar.gz"


def deliver(
    loose: Sequence[Path],
    packed: Sequence[tuple[str, Path]],
    out: Path,
    *,
    most: int = MOST,
    largest: int = LARGEST,
) -> list[str]:
    """Replace the content of a folder by files of a limited number and size.

    Args:
        loose: Text files to deliver as they are, the most important first. One that is too large is
            cut in its middle; those beyond half of the number are packed instead.
        packed: Names and files for the archive, the most important first. The last ones are left
            out if the archive has more parts than files are left.
        out: The folder.
        most: Number of files.
        largest: Bytes of a file.

    Returns:
        One line for each file that was cut, packed or left out.
    """
    kept, extra = list(loose[: most // 2]), loose[most // 2 :]
    why = f"more than {most // 2} loose files, packed into {_ARCHIVE}"
    lines = [f"{path.name}: {why}" for path in extra]
    packed = [*((path.name, path) for path in extra), *packed]
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        if old.is_file():
            old.unlink()
    for path in kept:
        data = path.read_bytes()
        if len(data) > largest:
            lines.append(f"{path.name}: cut from {len(data)} to {largest} bytes")
            data = _cut(data, largest)
        (out / path.name).write_bytes(data)
    room = (most - len(kept)) * largest
    archive = _archive(packed)
    while len(archive) > room:
        name, path = packed.pop()
        lines.append(f"{name}: {path.stat().st_size} bytes, left out: no room for it")
        archive = _archive(packed)
    for number, start in enumerate(range(0, len(archive) if packed else 0, largest)):
        (out / f"{_ARCHIVE}.{number}").write_bytes(archive[start : start + largest])
    return lines


def violations(out: Path, *, most: int = MOST, largest: int = LARGEST) -> list[str]:
    """Return one line for each limit that a folder exceeds."""
    files = [path for path in out.rglob("*") if path.is_file()]
    found = [] if len(files) <= most else [f"{out} holds {len(files)} files, more than {most}"]
    return found + [
        f"{path.name} has {path.stat().st_size} bytes, more than {largest}"
        for path in files
        if path.stat().st_size > largest
    ]


def restore(folder: Path, work: Path) -> None:
    """Unpack the archive of an earlier output folder into a work folder.

    Raises:
        ValueError: If there is no archive, or it is damaged.
    """
    parts = sorted(folder.glob(f"{_ARCHIVE}.*"), key=lambda path: int(path.suffix[1:]))
    if not parts:
        raise ValueError(f"--resume-from: {folder} holds no {_ARCHIVE}.0; name an earlier output.")
    try:
        data = gzip.decompress(b"".join(path.read_bytes() for path in parts))  # checks its CRC
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(work, filter="data")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"--resume-from: {folder}: {_ARCHIVE} is damaged ({error}).") from error


def _cut(data: bytes, largest: int) -> bytes:
    """Return the first and the last bytes of a text, with a line between them."""
    words = f"\n... {len(data) - largest} bytes cut ...\n".encode()
    half = (largest - len(words)) // 2
    return data[:half] + words + data[-half:]


def _archive(files: Iterable[tuple[str, Path]]) -> bytes:
    """Return a compressed archive."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w:gz", compresslevel=1) as archive:
        for name, path in files:
            archive.add(path, arcname=name)
    return found.getvalue()
