"""The description of a model in the folder of its results: written once, compared after that."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from spikeguard.config.errors import ConfigError
from spikeguard.data.images import ImageSet
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import is_sealed, sealed, weights_digest
from spikeguard.storage.folder_lock import holds_nothing
from spikeguard.storage.run_folder import MODEL

__all__ = ["image_facts", "weights_of", "write_or_check_card"]


def image_facts(images: ImageSet) -> dict[str, Any]:
    """Return digest, number, shape and class names of images; the digest is of their content."""
    return {**images.describe(), "images": images.content_digest}


def write_or_check_card(
    path: Path, card: dict[str, Any], more: dict[str, Any], *, free: Collection[str] = ()
) -> None:
    """Write the description of the model into its folder; reject the folder of another model.

    Entries named in ``free`` may differ, such as the path of a file whose content is compared.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; choose another folder with --out.")
    file = path / MODEL
    if file.exists():
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            is_sealed(held)
        except ValueError as error:
            raise ConfigError(f"{file}: damaged ({error}); move the folder away.") from error
        was = _flat(held)
        now = _flat(card if "neurons" in held else {**card, "neurons": {}})  # older files lack it
        other = next((k for k in now if k not in free and was.get(k) != now[k]), None)
        if other is not None:
            raise ConfigError(
                f"{path} holds results of another model: {other} was {was.get(other)!r}, is "
                f"{now[other]!r}; choose another folder with --out."
            )
    elif path.is_dir() and not holds_nothing(path):
        raise ConfigError(f"{path} holds something else; choose another folder with --out.")
    complete = sealed(json.loads(json.dumps({**card, **more})))
    if not file.exists() or held != complete:
        write_json(file, complete)


def _flat(card: dict[str, Any]) -> dict[str, Any]:
    """Return a card with the entries of its layers at top level."""
    layers = card.get("neurons", {}).items()
    flat = {name: value for name, value in card.items() if name != "neurons"}
    return flat | {f"{what} of {layer}": v for layer, known in layers for what, v in known.items()}


def weights_of(model: nn.Module) -> str:
    """Return the digest of all weights and statistics by name."""
    return weights_digest(model.state_dict())
