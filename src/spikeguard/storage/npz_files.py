"""Read ``.npz`` files whose headers may lie: sizes are checked before memory is allocated."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

__all__ = ["DEFLATE", "DamagedFile", "HoldsObjects", "read_npz", "require_modest_zip"]

_FREE = 64 << 20  # bytes that any archive may unpack to
_RATIO = 100  # and as many times its own size; images and outcomes compress to a tenth, rarely more
DEFLATE = 1032  # the most that zip can compress; sparse events come near
_END = 22  # bytes of the record at the end of a zip archive
_KINDS = "biufcSU"  # no Python objects, no records


class DamagedFile(ValueError):
    """A file is not what was written: cut short, changed, or a trap."""


class HoldsObjects(DamagedFile):
    """An array holds Python objects, whose reading would run code."""


def read_npz(
    path: str | Path, names: Iterable[str] | None = None, *, ratio: int = _RATIO
) -> dict[str, Any]:
    """Return the arrays of an ``.npz`` file by name; numbers and text only.

    Args:
        path: The file.
        names: Read only these arrays; all by default.
        ratio: How many times its own size the file may unpack to, beyond 64 MiB.

    Raises:
        DamagedFile: If the file is no whole archive of arrays, if an array's header does not agree
            with its size, if a checksum is wrong, or if the file would unpack to more than 64 MiB
            and ``ratio`` times its own size; HoldsObjects if an array holds Python objects.
        OSError: If the file cannot be opened.
    """
    path = Path(path)
    with path.open("rb") as handle:
        try:
            require_modest_zip(handle, path.stat().st_size, ratio)
            with zipfile.ZipFile(handle) as archive:
                _require_whole_directory(handle, archive)
                wanted = None if names is None else set(names)
                found = {}
                for entry in archive.infolist():
                    name, dot, kind = entry.filename.rpartition(".")
                    if (dot, kind) != (".", "npy") or name in found:
                        raise DamagedFile(f"it holds {entry.filename!r}")
                    if wanted is None or name in wanted:
                        found[name] = _read_array(archive, entry)
        except DamagedFile as error:
            raise type(error)(f"{path}: damaged: {error}.") from error
        except Exception as error:  # the parsers of zip and npy raise a dozen types
            said = str(error).partition("\n")[0] or type(error).__name__
            raise DamagedFile(f"{path}: damaged: {said}.") from error
    missing = sorted((wanted or set()) - set(found))
    if missing:
        raise DamagedFile(f"{path}: damaged: it holds no {missing[0]!r}.")
    return found


def require_modest_zip(file: Any, size: int, ratio: int = _RATIO) -> None:
    """Reject an archive that declares more content than a file of ``size`` bytes may have.

    ``zipfile`` never reads more from an entry than the directory declares.

    Raises:
        DamagedFile: If it does.
        zipfile.BadZipFile: If it is no zip archive.
    """
    with zipfile.ZipFile(file) as archive:
        declared = sum(entry.file_size for entry in archive.infolist())
    if declared > _FREE + ratio * size:
        raise DamagedFile(f"its {size} bytes would unpack to {declared}")


def _require_whole_directory(file: Any, archive: zipfile.ZipFile) -> None:
    """Compare the number of entries with the count at the end; ``zipfile`` ignores the count."""
    file.seek(-_END - len(archive.comment), 2)
    count = int.from_bytes(file.read(_END)[10:12], "little")
    if count != len(archive.infolist()):
        raise DamagedFile(f"it lists {len(archive.infolist())} of {count} arrays")


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    """Read one array after its header has been compared with the size of the entry."""
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise DamagedFile(f"{entry.filename} is of version {version}")
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = reader(file)
        if dtype.kind not in _KINDS:
            rejected = HoldsObjects if dtype.hasobject else DamagedFile
            raise rejected(f"{entry.filename} holds {dtype}, not numbers or text")
        expected = file.tell() + math.prod(shape) * dtype.itemsize
    if expected != entry.file_size or any(length < 0 for length in shape):
        raise DamagedFile(f"{entry.filename} declares {shape} {dtype} in {entry.file_size} bytes")
    with archive.open(entry) as file:
        array = npy.read_array(file, allow_pickle=False)
        file.read(1)  # at the end the checksum is compared
    return np.asarray(array)
