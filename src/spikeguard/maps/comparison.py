"""compare(): the difference of two maps, cell by cell, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeguard.config.errors import ConfigError
from spikeguard.maps.fronts import SYNOPS, goals, number
from spikeguard.storage.digests import is_sealed
from spikeguard.sweeps.space import Value

__all__ = ["Comparison", "Difference", "compare", "read_map"]


@dataclass(frozen=True)
class Difference:
    """A cell of two maps; numbers are those of the second less those of the first.

    Attributes:
        point: Value of each field.
        classes: Class in the first map and in the second.
        accuracies: By "accuracy" and attack: the difference and its 95 % interval, in [-1, 1]. The
            interval is that of two sets of test images.
        synops: Synaptic operations of an image in the second map over those in the first; None
            where the first has none.
    """

    point: Mapping[str, Value]
    classes: tuple[str, str]
    accuracies: Mapping[str, tuple[float, float, float]]
    synops: float | None


@dataclass(frozen=True)
class Comparison:
    """The difference of two maps.

    Attributes:
        cells: The cells that both have measured, in the order of the first map.
        only: Number of cells that only the first map has measured, and only the second.
    """

    cells: list[Difference]
    only: tuple[int, int]


def read_map(folder: Path) -> dict[str, Any]:
    """Return the content of map.json.

    Raises:
        ConfigError: If it is missing or damaged.
    """
    file = folder / "map.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        is_sealed(found)
        if not isinstance(found["cells"], list):
            raise ValueError("no cells")
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no map, it holds no map.json.") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{file}: damaged ({error}); run its map again.") from error
    return found


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Return the difference of two maps over the same fields.

    Attacks that one of them lacks are left out.

    Args:
        first: What map.json of the first map holds.
        second: That of the second.

    Raises:
        ConfigError: If the fields differ, or no cell is in both.
    """
    fields = [[card["map"][axis]["field"] for axis in ("x", "y")] for card in (first, second)]
    if sorted(fields[0]) != sorted(fields[1]):
        words = [" and ".join(each) for each in fields]
        raise ConfigError(f"the maps have other fields: {words[0]}, and {words[1]}.")
    here, there = ({_key(c): c for c in card["cells"]} for card in (first, second))
    both = [key for key in here if key in there]
    if not both:
        raise ConfigError("the maps have no cell in common; give both the same values.")
    cells = [_difference(here[key], there[key]) for key in both]
    return Comparison(cells, (len(here) - len(both), len(there) - len(both)))


def _key(cell: Mapping[str, Any]) -> str:
    exact = {name: float(v) if isinstance(v, int) else v for name, v in cell["point"].items()}
    return json.dumps(exact, sort_keys=True)


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> Difference:
    from spikeguard.evaluation.estimates import Estimate
    from spikeguard.evaluation.statistics import Score

    found = {}
    for name in goals([a]):
        if name == SYNOPS or name not in goals([b]) or "accuracy" not in a or "accuracy" not in b:
            continue
        pair = [each["accuracy"] if name == "accuracy" else each["robust"][name] for each in (b, a)]
        scores = [Score.from_share(each["accuracy"], each["n"]) for each in pair]
        gap = Estimate.unpaired(*scores)
        found[name] = (gap.value, gap.low, gap.high)
    before, after = number(a, SYNOPS), number(b, SYNOPS)
    ratio = None if not before or after is None else after / before
    kinds = (a["class"] or "failed", b["class"] or "failed")
    return Difference(a["point"], kinds, found, ratio if ratio and math.isfinite(ratio) else None)
