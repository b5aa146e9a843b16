"""Read a pickle that holds only numbers, text, containers and byte arrays; run no code from it.

A pickle is a program: it names classes and functions, which an ordinary reader imports and calls.
This reader maps the few names that an array of bytes needs to the four inert stand-ins below and
rejects every other name. The file cannot reach even numpy.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_pickle"]


def read_pickle(path: Path) -> Any:
    """Return the content of the pickle at ``path``, with arrays as uint8 arrays.

    Strings written by Python 2 are returned as bytes.

    Raises:
        ValueError: If the file names anything but a byte array, or is empty, truncated or corrupt.
    """
    try:
        return _arrays(_Reader(path).load())
    except _Rejected as error:
        raise ValueError(f"{path}: rejected: {error}; a CIFAR file holds only arrays.") from error
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not a whole pickle ({reason}); fetch it again.") from error


class _Rejected(Exception):
    """The pickle contains something that an array of bytes does not need."""


class _Inert:
    """A stand-in that the file cannot change: its state is either checked or rejected."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise _Rejected(f"this pickle wants to change {type(self).__name__}")


class _Array(_Inert):
    """Stand-in for numpy.ndarray: keeps the bytes and the shape."""

    __slots__ = ("value",)
    value: NDArray[np.uint8]

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _Dtype(), int(fortran), bytes(data)):
                pass
            case _:
                raise _Rejected("this pickle holds an array that is not made of bytes")
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(data):
            raise _Rejected(f"this pickle holds {len(data)} bytes for an array of shape {shape}")
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype(_Inert):
    """Stand-in for numpy.dtype: the unsigned byte and no other."""

    __slots__ = ()

    def __new__(cls, code: object = None, *_: object) -> _Dtype:
        if code not in (b"u1", "u1", b"uint8", "uint8"):
            raise _Rejected(f"this pickle holds an array of type {code!r}, not uint8")
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Byte order, fields and flags mean nothing for a byte."""


class _Reconstruct(_Inert):
    """Stand-in for numpy's _reconstruct(ndarray, (0,), b"b")."""

    __slots__ = ()

    def __new__(cls, kind: object = None, *_: object) -> Any:
        if kind is not _Array:
            raise _Rejected("this pickle wants to build a subclass of an array")
        return _Array()


class _Encode(_Inert):
    """Stand-in for _codecs.encode, with which Python 3 writes bytes in old protocols."""

    __slots__ = ()

    def __new__(cls, text: object = "", codec: object = "latin1") -> Any:
        if not isinstance(text, str) or codec not in ("latin1", b"latin1"):
            raise _Rejected(f"this pickle wants to encode with {codec!r}")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], type[_Inert]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct,
    ("_codecs", "encode"): _Encode,
}


class _Reader(pickle.Unpickler):
    def __init__(self, path: Path):
        super().__init__(io.BytesIO(path.read_bytes()), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; no other name is looked up."""
        if (module, name) not in _STAND_INS:
            raise _Rejected(f"this pickle wants to build {module}.{name}")
        return _STAND_INS[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise _Rejected("this pickle wants to load an object from elsewhere")


def _arrays(tree: Any) -> Any:
    """Replace the stand-ins at the top level of a dict, where a CIFAR file has its arrays."""
    if not isinstance(tree, dict):
        raise _Rejected(f"this pickle holds a {type(tree).__name__}, not a dict")
    return {
        key: value.value if isinstance(value, _Array) and hasattr(value, "value") else value
        for key, value in tree.items()
    }
