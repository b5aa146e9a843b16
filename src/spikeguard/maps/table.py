"""The table of a map as CSV: a line for each cell, a column for each number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["cells_csv"]

_LEFT_OUT = ("seeds", "runs")


def cells_csv(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the records of cells as CSV text; an empty cell is a number that is not known.

    A column is named by its path in the record, such as "spikes.layers.features.2"; the accuracy of
    each seed is "accuracy.seed0".
    """
    rows = [dict(_flat(cell)) for cell in cells]
    head = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, head, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(cell: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in cell.items():
        if name in _LEFT_OUT and not path:
            continue
        if isinstance(value, Mapping):
            below = f"{path}{name}."
            yield from _flat(value, "" if below == "point." else below)
        else:
            yield f"{path}{name}", value
    if not path:
        for seed, card in cell.get("seeds", {}).items():
            yield f"accuracy.seed{seed}", card["accuracy"]["accuracy"]
