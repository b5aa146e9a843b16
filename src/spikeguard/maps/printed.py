"""Points of a published table that lie on a map of time constant and threshold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeguard.config.published import Row, rows

__all__ = ["Printed", "printed_points"]

_AT = re.compile(r"tau=(\S+) v_th=(\S+)")


@dataclass(frozen=True)
class Printed:
    """A point of a table.

    Attributes:
        x: Value of the map's first field.
        y: Value of the second.
        text: Table, point, accuracy and number of spikes as printed.
    """

    x: float
    y: float
    text: str


def printed_points(card: Mapping[str, Any]) -> list[Printed]:
    """Return the printed points of the map's network and data set, within its axes.

    Args:
        card: What map.json holds under "map".
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
            found.append(Printed(x, y, _text(row)))
    return found


def _within(values: Sequence[float], value: float) -> bool:
    return min(values) <= value <= max(values)


def _text(row: Row) -> str:
    spikes = row.notes.get("clean", "").partition(";")[0]
    return f"{row.short}, {row.defence}: {row.accuracies['clean']:g} %, {spikes}"
