"""Digests of weights, arrays and files, and the checksum inside a JSON file; all are SHA-256."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CHECKSUM",
    "FILES",
    "IDENTITY",
    "UNVERIFIED",
    "content_digest",
    "file_digest",
    "is_sealed",
    "sealed",
    "weights_digest",
    "without_addresses",
]

CHECKSUM = "checksum"  # key of a card's checksum
IDENTITY = "identity"  # key of what a result was made with: weights, data, settings, code
FILES = "files"  # key of the digests of the files that belong to a card
UNVERIFIED = " (of an older version, cannot be verified)"  # after the name of such a result


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return the digest of a state dict: names, types, shapes and values, in any order."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(_raw(tensor))
    return found.hexdigest()


def without_addresses(text: str) -> str:
    """Return a description of objects without their addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def content_digest(*parts: Tensor | bytes) -> str:
    """Return the digest of tensors, their types and shapes included, and of bytes."""
    total = hashlib.sha256()
    for part in parts:
        if not isinstance(part, bytes):
            total.update(f"{part.dtype} {tuple(part.shape)}".encode())
            part = _raw(part)
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sealed(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a checksum of everything else in it."""
    return {**card, CHECKSUM: _checksum(card)}


def is_sealed(card: Mapping[str, Any]) -> bool:
    """Verify the checksum of a JSON object that was read from a file.

    Returns:
        Whether it has one; objects written by older versions have none.

    Raises:
        ValueError: If the checksum is another one, or was removed.
    """
    if CHECKSUM not in card:
        if IDENTITY in card or FILES in card:
            raise ValueError("its checksum is missing")
        return False
    if card[CHECKSUM] != _checksum(card):
        raise ValueError("its checksum is another one: the file was changed after it was written")
    return True


def _checksum(card: Mapping[str, Any]) -> str:
    content = {name: value for name, value in card.items() if name != CHECKSUM}
    as_read = json.loads(json.dumps(content))  # tuples are lists and keys are texts, as in a file
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _raw(tensor: Tensor) -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
