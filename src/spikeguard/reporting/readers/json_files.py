"""Read text and JSON files; every error is one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikeguard.storage.digests import IDENTITY, is_sealed

__all__ = ["of_other_checkpoint", "read_json", "read_text", "reading", "require_weights"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object, and verify its checksum if it has one."""
    text = read_text(path)
    with reading(path):
        card = json.loads(text)
        if not isinstance(card, dict):
            raise TypeError(f"expected an object, got {type(card).__name__}")
        try:
            is_sealed(card)
        except ValueError as error:
            raise ValueError(f"{error}; restore it, or move it away and make it again") from error
        return card


def require_weights(
    card: Mapping[str, Any], weights: Mapping[str, str], path: Path, again: str
) -> None:
    """Reject a stored result of other weights than those of its run.

    Args:
        card: The content of its file.
        weights: Digests of the weights by the name of their checkpoint; a result of another
            checkpoint, or of an older version, is not compared.
        path: The file.
        again: The command that makes it again.
    """
    with reading(path):
        made_with = dict(card.get(IDENTITY) or {}).get("weights")
        now = weights.get(str(card.get("checkpoint", "best")))
    if made_with is not None and now is not None and made_with != now:
        raise ValueError(f"{path}: is of other weights; move it away and {again} again.")


def of_other_checkpoint(
    made_with: str | None, named: str | None, weights: Mapping[str, str], wanted: str | None
) -> bool:
    """Whether a result is of another checkpoint than the one that the recipe attacks.

    Args:
        made_with: Digest of the weights of the result; None or "" where it was not stored.
        named: Name of its checkpoint; None where it was not stored.
        weights: Digests of the weights by the name of their checkpoint.
        wanted: The checkpoint that the recipe attacks; None for a model with one checkpoint.
    """
    if wanted is None:
        return False
    if made_with and wanted in weights:
        return made_with != weights[wanted]
    return named is not None and named != wanted


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
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: {where}{error}.") from error
