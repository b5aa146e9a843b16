"""Reader for ``model.json``, the description of a foreign model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeguard.reporting.readers.json_files import read_json, reading

__all__ = ["ForeignModelCard", "class_names", "read_foreign_model"]


@dataclass(frozen=True)
class ForeignModelCard:
    """Content of ``model.json``.

    Attributes:
        model: Factory of the model, as package.module:function.
        data: Data set of its attacks.
        arguments: Command-line arguments that select the model.
        facts: Values for the table of settings, by name; unknown ones are left out.
        weights: Digest of the weights; "" where the file has none.
    """

    model: str
    data: str
    arguments: tuple[str, ...]
    facts: Mapping[str, str]
    weights: str = ""


def class_names(card: Mapping[str, Any]) -> dict[str, str]:
    """Return the row with the class names of own data; empty if there are none."""
    names = card.get("classes", [])
    return {"Classes": ", ".join(map(str, names))} if names else {}


def read_foreign_model(path: Path) -> ForeignModelCard:
    """Read ``model.json``."""
    card = read_json(path)
    with reading(path):
        names = {"data": "Data set", "model": "Network", "framework": "Framework"}
        names |= {"T": "Time steps T", "presentation": "Presentation", "readout": "Readout"}
        names |= {"weights": "SHA-256 of the weights", "images": "SHA-256 of the images"}
        arguments = card.get("arguments", ["--model", card["model"], "--data", card["data"]])
        return ForeignModelCard(
            model=str(card["model"]),
            data=str(card["data"]),
            arguments=tuple(map(str, arguments)),
            facts={names[key]: str(card[key]) for key in names if key in card} | class_names(card),
            weights=str(card.get("weights", "")),
        )
