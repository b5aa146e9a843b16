"""Read a pickle that holds only numbers, text, containers and byte arrays; run no code from it.

A pickle is a program. This reader runs the few instructions that a CIFAR file needs, in time and
memory that the size of the file bounds, and rejects every other instruction. It never imports or
calls what the file names: four names stand for what an array of bytes needs, all others are
rejected. The file cannot reach even numpy.
"""

from __future__ import annotations

import math
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_pickle"]

_FILE = 512 << 20  # bytes; the largest official file has 155 MB
_INSTRUCTIONS = 2_000_000  # an official file has at most 300,000
_DIMENSIONS = 8


def read_pickle(path: Path) -> Any:
    """Return the content of the pickle at ``path``, with arrays as uint8 arrays.

    Strings written by Python 2 are returned as bytes.

    Raises:
        ValueError: If the file names anything but a byte array, or is empty, truncated or corrupt.
    """
    size = path.stat().st_size
    if size > _FILE:
        raise ValueError(f"{path}: rejected: {size} bytes; a CIFAR file has at most {_FILE}.")
    try:
        return _arrays(_Reader(path.read_bytes()).run())
    except _Rejected as error:
        raise ValueError(f"{path}: rejected: {error}; a CIFAR file holds only arrays.") from error
    except Exception as error:  # instructions that find the wrong thing on the stack
        reason = str(error).partition("\n")[0][:100] or type(error).__name__
        raise ValueError(f"{path}: not a whole pickle ({reason}); fetch it again.") from error


class _Rejected(Exception):
    """The pickle contains something that an array of bytes does not need."""


class _Array:
    """A byte array under construction; ``value`` is None until its state is set."""

    def __init__(self) -> None:
        self.value: NDArray[np.uint8] | None = None

    def set_state(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _Dtype(), int(fortran), bytes(data)):
                pass
            case _:
                raise _Rejected("this pickle holds an array that is not made of bytes")
        usual = len(shape) <= _DIMENSIONS and all(type(n) is int and 0 <= n <= _FILE for n in shape)
        if not usual or math.prod(shape) != len(data):
            said = f" of shape {shape}" if usual else ""
            raise _Rejected(f"this pickle holds {len(data)} bytes for an array{said}")
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """The type of unsigned bytes; no other is read."""

    def set_state(self, state: object) -> None:
        """Byte order, fields and flags mean nothing for a byte."""


_ARRAY, _DTYPE, _RECONSTRUCT, _ENCODE = "ndarray", "dtype", "reconstruct", "encode"
_NAMES = {
    "numpy ndarray": _ARRAY,
    "numpy dtype": _DTYPE,
    "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
    "_codecs encode": _ENCODE,
}


class _Name(str):
    """A name that the file may use; a plain text is none."""


class _Reader:
    """Runs the instructions of a pickle on a stack of plain values."""

    def __init__(self, data: bytes):
        self.data = data
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0  # bytes made from text

    def run(self) -> Any:
        """Return what the last instruction leaves."""
        for count, (code, argument, _) in enumerate(pickletools.genops(self.data)):
            if count > _INSTRUCTIONS:
                raise _Rejected(f"this pickle has more than {_INSTRUCTIONS} instructions")
            if code.name == "STOP":
                return self.pop()
            self.step(code.name, argument)
        raise EOFError("it has no end")

    def step(self, code: str, argument: Any) -> None:
        """Run one instruction."""
        match code:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code])
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1":
                self.stack.append(argument)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                self.stack.append(argument.encode("latin1"))
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                self.stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                self.stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT":
                self.stack.append({"EMPTY_LIST": [], "EMPTY_TUPLE": (), "EMPTY_DICT": {}}[code])
            case "LIST":
                self.stack.append(self.pop_to_mark())
            case "TUPLE":
                self.stack.append(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self.pop_many(int(code[-1]))))
            case "APPEND" | "APPENDS":
                items = [self.pop()] if code == "APPEND" else self.pop_to_mark()
                self.top(list).extend(items)
            case "DICT" | "SETITEM" | "SETITEMS":
                items = self.pop_many(2) if code == "SETITEM" else self.pop_to_mark()
                if code == "DICT":
                    self.stack.append({})
                self.top(dict).update(_pairs(items))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "GLOBAL" | "INST":
                self.stack.append(_named(argument))
            case "STACK_GLOBAL":
                module, name = self.pop_many(2)
                self.stack.append(_named(f"{_text(module)} {_text(name)}"))
            case "REDUCE":
                name, arguments = self.pop_many(2)
                self.stack.append(self.build(name, arguments))
            case "BUILD":
                state = self.pop()
                built = self.stack[-1]
                if not isinstance(built, _Array | _Dtype):
                    raise _Rejected("this pickle wants to change something else than an array")
                built.set_state(state)
            case "PERSID" | "BINPERSID":
                raise _Rejected("this pickle wants to load an object from elsewhere")
            case _:
                raise _Rejected(f"this pickle uses the instruction {code}")

    def build(self, name: object, arguments: Any) -> Any:
        """Return what calling a name gives."""
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise _Rejected("this pickle wants to call something else than a name")
        if name == _RECONSTRUCT:
            if arguments[:1] != (_ARRAY,) or not isinstance(arguments[0], _Name):
                raise _Rejected("this pickle wants to build a subclass of an array")
            return _Array()
        if name == _DTYPE:
            kind = arguments[0] if arguments else None
            if kind not in (b"u1", "u1", b"uint8", "uint8"):
                raise _Rejected(f"this pickle holds an array of type {_text(kind)!r}, not uint8")
            return _Dtype()
        if name == _ENCODE:
            text, codec = (*arguments, "latin1")[:2] if arguments else (None, None)
            if not isinstance(text, str) or codec not in ("latin1", b"latin1"):
                raise _Rejected(f"this pickle wants to encode with {_text(codec)!r}")
            self.encoded += len(text)
            if self.encoded > len(self.data):
                raise _Rejected("this pickle repeats its text")
            return text.encode("latin1")
        raise _Rejected(f"this pickle wants to call {name}")

    def pop(self) -> Any:
        """Take the last value since the last mark."""
        return self.pop_many(1)[0]

    def pop_many(self, count: int) -> list[Any]:
        """Take the last values since the last mark."""
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise LookupError("a value is missing")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def pop_to_mark(self) -> list[Any]:
        """Take all values since the last mark, and the mark."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def top(self, kind: type) -> Any:
        """Return the last value, which must be a container of a kind."""
        if type(self.stack[-1]) is not kind:
            raise LookupError(f"no {kind.__name__} to add to")
        return self.stack[-1]


def _named(argument: str) -> _Name:
    if argument not in _NAMES:
        raise _Rejected(f"this pickle wants to build {argument.replace(' ', '.')[:80]}")
    return _Name(_NAMES[argument])


def _text(value: object) -> str:
    """Return a short text for a message or a name; of other values, their type."""
    if isinstance(value, bytes):
        value = value.decode("latin1")
    return value[:80] if isinstance(value, str) else type(value).__name__


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Return alternate keys and values; a key is text or a number, so that hashing it is cheap."""
    if len(items) % 2 or not all(isinstance(key, str | bytes | int) for key in items[::2]):
        raise _Rejected("this pickle holds a key that is neither text nor a number")
    return dict(zip(items[::2], items[1::2], strict=True))


def _arrays(tree: Any) -> Any:
    """Replace the arrays at the top level of a dict, where a CIFAR file has them."""
    if not isinstance(tree, dict):
        raise _Rejected(f"this pickle holds a {type(tree).__name__}, not a dict")
    return {
        key: value.value if isinstance(value, _Array) and value.value is not None else value
        for key, value in tree.items()
    }
