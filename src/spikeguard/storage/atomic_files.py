"""Write files so that a reader sees the old one or the new one, never half of either.

Every function writes to a temporary name in the same folder, flushes it to the disk and renames it.
After any error, a full disk or Ctrl-C, the temporary file is gone and the old file stands.
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
    """Give a temporary path to write to; it takes the place of ``path`` when the block ends well.

    The temporary name is hidden and ends in ``.tmp``, so that no pattern like ``*.json`` finds it:
    a writer that reads the format from the ending must be told the format. Missing folders are
    made.

    Args:
        path: The file to write or replace.

    Raises:
        OSError: If the disk is full or the folder cannot be written; it names ``path``.

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
            error.filename = str(target)  # "no space left on device" must say where
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write text atomically, as UTF-8 and with the line ends it has."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, obj: Any) -> None:
    """Write strict JSON atomically: no NaN, no infinity, nothing that JSON has no form for.

    Args:
        path: The file to write or replace.
        obj: Dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        ValueError: If ``obj`` has no JSON form; the old file stands.
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
    """Write arrays to a compressed ``.npz`` atomically; it can be read without pickle.

    Args:
        path: The file to write or replace.
        **arrays: What ``numpy.load(path)`` will hold under these names.

    Raises:
        ValueError: If an array holds Python objects, which only a pickle could store.
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
