"""compare(): the difference of two maps, cell by cell, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikeguard.config.errors import ConfigError
from spikeguard.maps.fronts import SYNOPS, goals, number
from spikeguard.storage.digests import is_sealed
from spikeguard.sweeps.space import Value, point_key

__all__ = ["Comparison", "Difference", "Ratio", "compare", "read_map"]

Ratio = tuple[float, float | None, float | None]  # value, low, high
_SYNOPS_KEYS = ("operations:effective_acs", "operations:effective_macs")


@dataclass(frozen=True)
class Difference:
    """A cell of two maps; numbers are those of the second less those of the first.

    Attributes:
        point: Value of each field.
        classes: Class in the first map and in the second.
        accuracies: By "accuracy" and attack: the difference and its 95 % interval, in [-1, 1]. The
            interval is that of two sets of test images.
        synops: Synaptic operations of an image in the second map over those in the first; None
            where one of them has none.
        ratios: By "spikes" and "synops": the number of an image in the second map over that in the
            first, and the 95 % interval; None for an interval that is not known.
    """

    point: Mapping[str, Value]
    classes: tuple[str, str]
    accuracies: Mapping[str, tuple[float, float, float]]
    synops: float | None
    ratios: Mapping[str, Ratio] = field(default_factory=dict)

    @property
    def changed(self) -> frozenset[str]:
        """What differs: names whose interval excludes no change, and "class"."""
        found = {name for name, (_, low, high) in self.accuracies.items() if low > 0 or high < 0}
        for name, (_, low, high) in self.ratios.items():
            if low is not None and high is not None and (low > 1 or high < 1):
                found.add(name)
        return frozenset(found | ({"class"} if len(set(self.classes)) > 1 else set()))


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
    here, there = ({point_key(c["point"]): c for c in card["cells"]} for card in (first, second))
    both = [key for key in here if key in there]
    if not both:
        raise ConfigError("the maps have no cell in common; give both the same values.")
    cells = [_difference(here[key], there[key]) for key in both]
    return Comparison(cells, (len(here) - len(both), len(there) - len(both)))


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
    ratios = {name: _ratio(_spread(a, name), _spread(b, name)) for name in ("spikes", SYNOPS)}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    kinds = (a["class"] or "failed", b["class"] or "failed")
    synops = known[SYNOPS][0] if SYNOPS in known else None
    return Difference(a["point"], kinds, found, synops, known)


def _spread(cell: Mapping[str, Any], name: str) -> tuple[float, float, float] | None:
    """Return spikes or operations of an image with their interval; NaN ends if it is not known.

    The ends are means over the seeds, which share the test images.
    """
    value = cell["spikes"]["an_image"] if name == "spikes" and "spikes" in cell else None
    value = number(cell, SYNOPS) if name == SYNOPS else value
    if value is None:
        return None
    keys = ("spikes:an_image",) if name == "spikes" else _SYNOPS_KEYS
    low, high = (_mean_end(cell["seeds"].values(), keys, end) for end in ("low", "high"))
    return value, low, high


def _mean_end(seeds: Collection[Mapping[str, Any]], keys: Sequence[str], end: str) -> float:
    """Return an end of the interval of a sum of numbers, the mean over the seeds."""
    found = 0.0
    for card in seeds:
        for group, name in (key.split(":") for key in keys):
            known = card.get(group, {}).get(name, {}).get(end)
            found += math.nan if known is None else known
    return found / len(seeds)


def _ratio(
    a: tuple[float, float, float] | None, b: tuple[float, float, float] | None
) -> Ratio | None:
    """Return b over a with the interval of two means on different samples; None if one is 0.

    Source: Zou and Donner, "Construction of confidence limits about effect measures: a general
    approach", Statistics in Medicine 27, 2008: the limits of a difference, here of logarithms.
    """
    if a is None or b is None or not (0 < a[0] < math.inf and 0 < b[0] < math.inf):
        return None
    ratio = b[0] / a[0]
    if not all(0 < end < math.inf for end in (*a, *b)):
        return ratio, None, None
    (la, lowa, higha), (lb, lowb, highb) = (tuple(map(math.log, each)) for each in (a, b))
    below, above = math.hypot(lb - lowb, higha - la), math.hypot(highb - lb, la - lowa)
    return ratio, ratio * math.exp(-below), ratio * math.exp(above)
