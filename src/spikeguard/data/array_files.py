"""Arrays from ``.npz`` and ``.npy`` files, checked before memory is allocated for them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeguard.storage import npz_files

__all__ = ["read_npy", "read_npz"]

_ALWAYS = 1 << 26  # bytes that a file may claim however small it is
_OBJECTS = (
    "holds Python objects, which would run code; save numbers, such as "
    "np.savez('data.npz', x=np.stack(list(x)), y=y)."
)


def read_npz(path: Path, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file whose names are wanted.

    Raises:
        ValueError: If the file is damaged, holds Python objects, or claims arrays that are far
            larger than the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        return npz_files.read_npz(path, filter(wanted, names))
    except npz_files.HoldsObjects as error:
        raise ValueError(f"{path}: {_OBJECTS}") from error
    except npz_files.DamagedFile as error:
        said = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: not a whole npz file ({said.rstrip('.')}).") from error
    except (ValueError, OSError, LookupError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a whole npz file ({_line(error)}).") from error


def read_npy(path: Path) -> NDArray[Any]:
    """Return the array of an ``.npy`` file.

    Raises:
        ValueError: If the file is damaged or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(file)
            _require_modest(path, dtype, shape)
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except _Rejected:
        raise
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a whole npy file ({_line(error)}).") from error


class _Rejected(ValueError):
    """The file is whole, but its content is not taken."""


def _require_modest(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Compare what the header of an ``.npy`` file claims with the size of the file."""
    size = path.stat().st_size
    if dtype.hasobject:
        raise _Rejected(f"{path}: {_OBJECTS}")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > max(_ALWAYS, size) or min(shape, default=0) < 0:
        raise _Rejected(
            f"{path}: claims {claimed >> 20} MB in a file of {size >> 20} MB; it is damaged."
        )


def _line(error: BaseException) -> str:
    return (str(error).partition("\n")[0] or type(error).__name__).rstrip(".")
