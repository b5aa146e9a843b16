"""Points of a published table that lie on a map of time constant and threshold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeguard.config.published import PRINTED_N, Row, rows

__all__ = ["Printed", "printed_points"]

_AT = re.compile(r"tau=(\S+) v_th=(\S+)")
_SPIKES = re.compile(r"total spikes (\S+)")
_VALUES = ("total spikes ", "efficiency ")


@dataclass(frozen=True)
class Printed:
    """A point of a table.

    Attributes:
        x: Value of the map's first field.
        y: Value of the second.
        text: Table, point, accuracy, number of spikes and efficiency as printed.
        notes: Known errors and inconsistencies of these numbers.
    """

    x: float
    y: float
    text: str
    notes: tuple[str, ...] = ()


def printed_points(card: Mapping[str, Any], at_most: float | None = None) -> list[Printed]:
    """Return the printed points of the map's network and data set, within its axes.

    Args:
        card: What map.json holds under "map".
        at_most: Spikes of an image that the map's network can emit; None if that is not known. A
            printed number of spikes above it has a note.
    """
    axes = [card[name] for name in ("x", "y")]
    fields = [axis["field"].rpartition(".")[2] for axis in axes]
    if sorted(fields) != ["tau", "v_th"]:
        return []
    keys = card["recipe"].get("published") or []
    pairs = {(row.dataset, row.network) for key, row in rows().items() if key in keys}
    found = []
    for row in rows().values():
        at = _AT.fullmatch(row.defence)
        if at is None or (row.dataset, row.network) not in pairs:
            continue
        values = {"tau": float(at[1]), "v_th": float(at[2])}
        x, y = (values[field] for field in fields)
        if _within(axes[0]["values"], x) and _within(axes[1]["values"], y):
            found.append(Printed(x, y, *_words(row, at_most)))
    return found


def _within(values: Sequence[float], value: float) -> bool:
    return min(values) <= value <= max(values)


def _words(row: Row, at_most: float | None) -> tuple[str, tuple[str, ...]]:
    """Return the printed numbers as text, and the notes on them."""
    said = [each for each in row.notes.get("clean", "").split("; ") if each]
    values = [each for each in said if each.startswith(_VALUES)]
    notes = [each for each in said if each not in values]
    spikes = next((float(found[1]) for each in values if (found := _SPIKES.match(each))), 0.0)
    most = math.inf if at_most is None else at_most * PRINTED_N
    if spikes > most:
        notes.append(
            f"the network of this map emits at most {most:.3g} spikes on {PRINTED_N:,} images, so "
            "it is not the paper's"
        )
    numbers = ", ".join([f"{row.accuracies['clean']:g} %", *values])
    return f"{row.short}, {row.defence}: {numbers}", tuple(notes)
