"""Numeric arrays from MATLAB files of version 5, which ``save`` writes by default.

Source: MathWorks, "MAT-File Format", version 5: a header of 128 bytes, then elements of a type, a
length and content padded to 8 bytes; an element of type 15 is another one, compressed by zlib.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_mat"]

_KINDS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC = range(6, 16)  # double, single, and the integer classes
_COMPLEX = 0x0800
_LARGEST = 1 << 30  # bytes that a variable may unpack to
_RATIO = 1032  # zlib compresses no better than this


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """Return one real numeric array of a file, as stored there; other variables are passed over.

    Raises:
        ValueError: If the file is of another version or damaged, or has no such array.
    """
    content = path.read_bytes()
    if content[:128].startswith(b"MATLAB 7.3") or content[:4] == b"\x89HDF":
        raise ValueError(f"{path}: a MATLAB file of version 7.3; save it with '-v7'.")
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise ValueError(f"{path}: not a MATLAB file of version 5.")
    order = "<" if content[126:128] == b"IM" else ">"
    names = []
    try:
        for kind, body in _elements(memoryview(content)[128:], order):
            if kind == _COMPRESSED:
                kind, body = next(_elements(memoryview(_unpacked(body)), order))
            if kind == _MATRIX:
                found, array = _matrix(body, order, name)
                if array is not None:
                    return array
                names.append(found)
    except (zlib.error, struct.error, StopIteration, _Damaged) as error:
        raise ValueError(f"{path}: damaged or truncated ({error or 'it ends early'}).") from error
    held = ", ".join(map(repr, names)) or "nothing"
    raise ValueError(f"{path}: has no numeric array {name!r}, it holds {held}.")


class _Damaged(Exception):
    """The content does not follow the format."""


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of each element; up to 4 bytes may be in the tag itself."""
    at = 0
    while at < len(content):
        if len(content) - at < 8:
            raise _Damaged("a tag is cut")
        kind, length = struct.unpack_from(f"{order}II", content, at)
        start, padded = at + 8, -(-length // 8) * 8
        if kind >> 16:
            kind, length, start, padded = kind & 0xFFFF, kind >> 16, at + 4, 4
            if length > 4:
                raise _Damaged("a short element of more than 4 bytes")
        elif kind == _COMPRESSED:
            padded = length
        if start + length > len(content):
            raise _Damaged(f"an element of {length} bytes where {len(content) - start} are left")
        yield kind, content[start : start + length]
        at = start + padded


def _unpacked(body: memoryview) -> bytes:
    limit = min(_LARGEST, len(body) * _RATIO + 64)
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(body, limit)
    if not unpacker.eof:
        raise _Damaged("a compressed variable is cut")
    return found


def _matrix(body: memoryview, order: str, wanted: str) -> tuple[str, NDArray[Any] | None]:
    """Return the name of a variable, and its array if it is the wanted one and numeric."""
    parts = _elements(body, order)
    flags = struct.unpack_from(f"{order}I", next(parts)[1])[0]
    lengths = next(parts)[1]
    shape = struct.unpack(f"{order}{len(lengths) // 4}i", lengths)
    name = bytes(next(parts)[1]).decode("ascii", "replace")
    if name != wanted or flags & 0xFF not in _NUMERIC or flags & _COMPLEX:
        return name, None
    kind, values = next(parts)
    if kind not in _KINDS:
        raise _Damaged(f"numbers of type {kind}")
    dtype = np.dtype(f"{order}{_KINDS[kind]}")
    if len(values) % dtype.itemsize:
        raise _Damaged(f"{len(values)} bytes of numbers of {dtype.itemsize} bytes")
    array = np.frombuffer(values, dtype)
    if math.prod(shape) != len(array) or min(shape, default=-1) < 0:
        raise _Damaged(f"{name} has {len(array)} numbers for the shape {list(shape)}")
    return name, array.reshape(shape, order="F")
