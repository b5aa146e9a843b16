"""Arrays from ``.npz`` and ``.npy`` files, checked before memory is allocated for them."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["read_npy", "read_npz"]

_ALWAYS = 1 << 26  # bytes that a file may claim however small it is
_RATIO = 200  # beyond these, bytes of an array for a byte of the file


def read_npz(path: Path, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file whose names are wanted.

    Raises:
        ValueError: If the file is damaged, holds Python objects, or claims arrays that are far
            larger than the file.
    """
    size = path.stat().st_size
    found: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name == entry.filename or not wanted(name):
                    continue
                with archive.open(entry) as member:
                    dtype, shape, fortran = _header(member)
                    _check_size(f"{path}: {name}", dtype, shape, size)
                    count = math.prod(shape) * dtype.itemsize
                    content = member.read(count + 1)
                if len(content) != count:
                    raise ValueError(f"{name} is truncated")
                array = np.frombuffer(content, dtype)
                found[name] = array.reshape(shape, order="F" if fortran else "C")
    except _Rejected:
        raise
    except (ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile, LookupError) as error:
        raise ValueError(f"{path}: not a whole npz file ({_line(error)}).") from error
    except (NotImplementedError, RuntimeError) as error:  # encrypted, unknown compression
        raise ValueError(f"{path}: cannot be read ({_line(error)}); use np.savez.") from error
    return found


def read_npy(path: Path) -> NDArray[Any]:
    """Return the array of an ``.npy`` file.

    Raises:
        ValueError: If the file is damaged or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            dtype, shape, _ = _header(file)
            _check_size(str(path), dtype, shape, path.stat().st_size, ratio=1)
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except _Rejected:
        raise
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a whole npy file ({_line(error)}).") from error


class _Rejected(ValueError):
    """The file is whole, but its content is not taken."""


def _header(file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return dtype, shape, fortran


def _check_size(
    where: str, dtype: np.dtype[Any], shape: tuple[int, ...], size: int, ratio: int = _RATIO
) -> None:
    if dtype.hasobject:
        raise _Rejected(
            f"{where}: holds Python objects, which would run code; save numbers, such as "
            "np.savez('data.npz', x=np.stack(list(x)), y=y)."
        )
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > max(_ALWAYS, ratio * size) or min(shape, default=0) < 0:
        raise _Rejected(
            f"{where}: claims {claimed >> 20} MB in a file of {size >> 20} MB; it is damaged, or "
            " save it with np.savez, not np.savez_compressed."
        )


def _line(error: BaseException) -> str:
    return (str(error).partition("\n")[0] or type(error).__name__).rstrip(".")
