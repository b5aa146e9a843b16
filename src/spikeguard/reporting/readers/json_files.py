"""Read text and JSON files; every error is one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["read_json", "reading", "read_text"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object."""
    text = read_text(path)
    with reading(path):
        card = json.loads(text)
        if not isinstance(card, dict):
            raise TypeError(f"expected an object, got {type(card).__name__}")
        return card


def read_text(path: Path) -> str:
    """Read a text file."""
    if not path.is_file():
        raise ValueError(f"{path}: missing; is the training of this run finished?")
    with reading(path):
        return path.read_text(encoding="utf-8")


@contextmanager
def reading(path: Path, where: str = "") -> Iterator[None]:
    """Turn errors about the content of a file into one line that names the file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}: damaged: {where}it holds no {error}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged: {where}{error}.") from error
