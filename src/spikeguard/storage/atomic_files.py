"""Atomic file writes: a reader sees the old file or the new one, never a partial one.

Every function writes to a temporary file in the same folder, flushes it to disk and renames it.
After an error, a full disk or Ctrl-C, the temporary file is removed and the old file is unchanged.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["atomic", "write_bytes", "write_json", "write_npz", "write_text"]


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces ``path`` if the block raises no error.

    The temporary name is hidden and ends in ``.tmp``, so that a pattern like ``*.json`` does not
    match it. A writer that infers the format from the file extension needs the format as an
    argument. Missing folders are created.

    Args:
        path: The file to write or replace.

    Raises:
        OSError: If the disk is full or the folder is not writable; the error names ``path``.

    Example:
        >>> with atomic("model.safetensors") as temporary:  # doctest: +SKIP
        ...     save_file(tensors, temporary)
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)  # noqa: PTH105 - the one call that is atomic by contract
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(target)  # so that "no space left on device" names the file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    r"""Write text atomically, as UTF-8; line endings are not converted.

    A byte of a file name that is not UTF-8 is written as ``\udcff``, which JSON reads back.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: str | Path, obj: Any) -> None:
    """Write strict JSON atomically: no NaN, no infinity, no type that JSON does not have.

    Args:
        path: The file to write or replace.
        obj: Dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        ValueError: If ``obj`` cannot be written as JSON; the old file is unchanged.
    """
    try:
        text = json.dumps(obj, allow_nan=False, indent=2, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"write_json: {Path(path).name}: {error}; write None for a number that is not finite "
            "and plain lists and dicts for the rest."
        ) from error
    write_text(path, text + "\n")


def write_npz(path: str | Path, /, **arrays: ArrayLike) -> None:
    """Write arrays to a compressed ``.npz`` file atomically, readable without pickle.

    Args:
        path: The file to write or replace.
        **arrays: Arrays by the name under which ``numpy.load(path)`` returns them.

    Raises:
        ValueError: If an array holds Python objects, which would need pickle.
    """
    ready = {name: np.asarray(value) for name, value in arrays.items()}
    for name, array in ready.items():
        if array.dtype.hasobject:
            raise ValueError(
                f"write_npz: {Path(path).name}: array {name!r} holds Python objects; write numbers "
                "or fixed-width strings."
            )
    with atomic(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **ready)  # type: ignore[arg-type]
