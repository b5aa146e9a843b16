"""On-disk store for the finished shards of an evaluation in progress.

Its file identity.json ties it to one model, data set and set of options.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from spikeguard.data.images import ImageSet, content
from spikeguard.evaluation.result_files import PARTS
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import content_digest, without_addresses
from spikeguard.storage.npz_files import DEFLATE, read_npz

__all__ = [
    "open_shard_store",
    "read_shard",
    "store_warnings",
    "stored_shard_size",
    "stored_warnings",
]

_CARD = "identity.json"
_CHECK = "check.json"
_RESULTS = {".npz", ".begun", ".search"}


def open_shard_store(
    out: str | Path, identity: dict[str, Any], model: nn.Module, images: ImageSet
) -> Path:
    """Return the folder of finished shards; create it, or reject one of another evaluation.

    Args:
        out: The evaluation's folder.
        identity: Everything that the shards depend on, apart from model and data, as plain data.
        model: The model; its repr, its T and its weights are compared.
        images: The data.

    Raises:
        ValueError: If the folder holds shards with another identity or with none, or identity.json
            is damaged.
    """
    folder = Path(out) / PARTS
    state, written = model.state_dict(), without_addresses(repr(model))
    wanted = {
        **identity,
        "model": content_digest(written.encode(), repr(getattr(model, "T", None)).encode()),
        "weights": content_digest(
            *(part for name in state for part in (name.encode(), state[name]))
        ),
        "data": content_digest(*content(images)),
    }
    card = folder / _CARD
    if card.exists():
        try:
            found = json.loads(card.read_text())
        except ValueError as error:
            raise ValueError(f"evaluate: {card} is damaged; remove {folder}.") from error
        changed = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if changed:
            raise ValueError(
                f"evaluate: {folder} holds an unfinished evaluation with other "
                f"{', '.join(changed)}; finish that one, remove the folder, or choose another."
            )
    else:
        if folder.is_dir() and any(each.suffix in _RESULTS for each in folder.iterdir()):
            raise ValueError(
                f"evaluate: {folder} holds results of an unknown model, its {_CARD} is missing; "
                "remove the folder and run again."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(card, wanted)
    return folder


def stored_shard_size(out: str | Path) -> int | None:
    """Return the number of samples of the stored shards; None where there are none."""
    try:
        span = json.loads((Path(out) / PARTS / _CARD).read_text())["span"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # open_shard_store reports a damaged identity.json
    return span if isinstance(span, int) and span > 0 else None


def stored_warnings(out: str | Path) -> tuple[str, ...] | None:
    """Return the warnings of the check before the first shard; None where there was no check."""
    try:
        found = json.loads((Path(out) / PARTS / _CHECK).read_text())["warnings"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None


def store_warnings(store: Path, warnings: tuple[str, ...]) -> None:
    """Note in the folder of finished shards that the model was checked."""
    write_json(store / _CHECK, {"warnings": list(warnings)})


def read_shard(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read a finished shard.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return read_npz(path, ratio=DEFLATE)
    except (ValueError, OSError) as error:
        raise ValueError(f"evaluate: {path} is damaged; remove it and run again.") from error
