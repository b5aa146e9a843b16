"""What the folder of a model that no recipe made says of it: its name, how it is driven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spikeguard.reporting.readers.json_files import read_json, reading

__all__ = ["ForeignModelCard", "read_outside"]


@dataclass(frozen=True)
class ForeignModelCard:
    """What ``model.json`` holds.

    Attributes:
        model: Its factory, as package.module:function.
        data: The data set it is attacked on.
        arguments: Words of the command line that name it.
        facts: Lines about it, by name; what is not known of a plain classifier is left out.
    """

    model: str
    data: str
    arguments: tuple[str, ...]
    facts: Mapping[str, str]


def read_outside(path: Path) -> ForeignModelCard:
    """Read ``model.json``."""
    card = read_json(path)
    with reading(path):
        names = {"data": "Data set", "model": "Network", "framework": "Framework"}
        names |= {"T": "Time steps T", "presentation": "Presentation", "readout": "Readout"}
        names |= {"weights": "SHA-256 of the weights"}
        arguments = card.get("arguments", ["--model", card["model"], "--data", card["data"]])
        return ForeignModelCard(
            model=str(card["model"]),
            data=str(card["data"]),
            arguments=tuple(map(str, arguments)),
            facts={names[key]: str(card[key]) for key in names if key in card},
        )
