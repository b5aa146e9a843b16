"""The record of a converging search: its curve, what each search found, and an estimate."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spikeguard.evaluation.statistics import poisson_interval

__all__ = ["BEFORE", "is_of_suite_before", "merged_record"]

BEFORE = " (the suite before)"  # after the name of such a result

_FACTOR = math.sqrt(10)  # the last factor of the gradients, from which the estimate is taken


def merged_record(texts: Iterable[str], noisy: bool = False) -> dict[str, Any]:
    """Merge the records of blocks, as written by ``SearchBlocks.record``.

    The curve is that of all blocks searched side by side: at each point every block has spent the
    same number of gradients per remaining sample, or has ended.

    The estimate is for ten times the gradients. It assumes that samples fall at the rate per factor
    of the last factor sqrt(10), and gives twice that count with its 95 % Poisson interval. Only
    blocks in which samples are left count, and no block loses more than it has left. The estimate
    is an extrapolation, not a bound.

    Args:
        texts: The records of the blocks, in any grouping.
        noisy: Whether the model draws noise. The shares that are summed are then those on the draws
            that choose points, which are low by chance, and there is no estimate.

    Returns:
        A dictionary with ``n``, the samples attacked; ``start``, the sum of their shares of correct
        draws, ``n`` without noise; ``curve``, points with the ``search`` that
        ended there, ``spent`` gradients per remaining sample, ``gradients`` and ``cpu_s`` in all,
        and samples ``left``; ``searches``, for each its ``uses``, ``fooled``, ``gradients`` and
        ``cpu_s``; ``ended``, how many blocks ended by each rule; ``noisy``; and ``estimate``
        with ``more``, ``low`` and ``high``, samples likely still to fall, or None.
    """
    blocks = [block for text in texts for block in json.loads(text)]
    starts = [block["start"] for block in blocks]
    curve = _curve(blocks, starts)
    searches: dict[str, dict[str, float]] = {}
    for block in blocks:
        for each in block["rounds"]:
            entry = searches.setdefault(
                each["search"], {"uses": 0, "fooled": 0.0, "gradients": 0.0, "cpu_s": 0.0}
            )
            entry["uses"] += 1
            for name in ("fooled", "gradients", "cpu_s"):
                entry[name] += each[name]
    ended: dict[str, int] = {}
    for block in blocks:
        ended[block["ended"]] = ended.get(block["ended"], 0) + 1
    return {
        "n": sum(block["samples"] for block in blocks),
        "start": sum(starts),
        "curve": curve,
        "searches": searches,
        "ended": ", ".join(
            rule if len(ended) == 1 else f"{rule} ({count} of {len(blocks)} blocks)"
            for rule, count in ended.items()
        ),
        "noisy": noisy,
        "estimate": None if noisy else _estimate(blocks),
    }


def _estimate(blocks: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how many samples ten times the gradients are likely to fool, with an interval."""
    late = more = open_ = 0.0
    for block in blocks:
        rounds = block["rounds"]
        if not rounds or rounds[-1]["left"] == 0:
            continue
        left, since = rounds[-1]["left"], rounds[-1]["spent"] / _FACTOR
        found = sum(each["fooled"] for each in rounds if each["spent"] > since)
        late, more, open_ = late + found, more + min(2 * found, left), open_ + left
    low, high = (2 * limit for limit in poisson_interval(late))
    return {"more": more, "low": min(low, more), "high": max(more, min(high, open_))}


def is_of_suite_before(card: Mapping[str, Any]) -> bool:
    """Whether a stored result is of the suite "snn" before it was a converging search.

    That suite is now "snn-cascade". Its worst case is a valid, but weaker upper bound.

    Args:
        card: The content of the result's JSON file.
    """
    return card.get("suite") == "snn" and "snn" not in card["attacks"]


def _curve(blocks: Sequence[dict[str, Any]], starts: Sequence[float]) -> list[dict[str, Any]]:
    events = sorted(
        ((each["spent"], place, each) for place, block in enumerate(blocks)
         for each in block["rounds"]),
        key=lambda event: event[:2],
    )  # fmt: skip
    left, gradients, cpu_s = list(starts), 0.0, 0.0
    curve = []
    for spent, place, each in events:
        left[place] = each["left"]
        gradients, cpu_s = gradients + each["gradients"], cpu_s + each["cpu_s"]
        curve.append({"search": each["search"], "spent": spent, "gradients": gradients,
                      "cpu_s": cpu_s, "left": sum(left)})  # fmt: skip
    return curve
