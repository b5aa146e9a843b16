"""Tables of convergence.py: curves read at given CPU seconds, and bars."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["BARS", "Row", "print_calibration", "print_network"]

PARTS = {"1/10": 0.1, "1/2": 0.5, "1": 1.0, "1 1/2": 1.5}  # of AutoAttack's CPU seconds
BARS = {  # the largest percentage that may be left
    "demo/at": {"1/10": 27.0, "1/2": 21.0, "1 1/2": 17.0},
    "natural": {"end": 0.0},
    "adversarial": {"end": 31.0},
    "masked": {"end": 1.5},
}

Row = dict[str, Any]
Find = Callable[[str, str, int], Row | None]  # (network, kind, seed)


def left_at(start: float, fell: Sequence[float], seconds: float) -> float:
    """Return how many of ``start`` samples are left after some CPU seconds."""
    return start - sum(each <= seconds for each in fell)


def judged(value: float, bar: float | None) -> str:
    """Return "met", by how much a bar is not met, or "" if there is no bar."""
    if bar is None:
        return ""
    return "met" if value <= bar + 1e-9 else f"not met by {value - bar:.1f}"


def percentages(row: Row, autoattack_s: float | None) -> dict[str, float]:
    """Return the percentage left at each part of AutoAttack's CPU seconds, and at the end."""
    at = {} if autoattack_s is None else {name: p * autoattack_s for name, p in PARTS.items()}
    left = {name: left_at(row["start"], row["fell"], seconds) for name, seconds in at.items()}
    return {name: 100 * each / row["n"] for name, each in {**left, "end": row["left"]}.items()}


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each column."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def in_words(row: Row | None, n: int) -> str:
    """Return what a baseline left, and its CPU seconds."""
    return "not run" if row is None else f"{100 * row['left'] / n:.1f} % in {row['cpu_s']:.0f} s"


def print_network(name: str, find: Find, seeds: int) -> None:
    """Print the table of one network."""
    runs = [(s, row) for s in range(seeds) if (row := find(name, "snn", s)) is not None]
    if not runs:
        return
    n, bars = runs[0][1]["n"], BARS.get(name, {})
    print(f"\n{name}: eps {runs[0][1]['eps']:.4g}, {n} images, "
          f"clean {100 * runs[0][1]['start'] / n:.1f} %; percentage left")  # fmt: skip
    head = "".join(f"{part:>8}" for part in (*PARTS, "end"))
    print(f"{'seed':<8}{'AutoAttack':<18}{head}{'CPU s':>8}  ended, and estimate of ten times more")
    columns = []
    for seed, row in runs:
        theirs = find(name, "autoattack", seed)
        values = percentages(row, theirs and theirs["cpu_s"])
        columns.append(values)
        more = {k: 100 * v / n for k, v in row["estimate"].items()}
        ended = f"{row['ended']} at {row['spent']:.0f} gradients"
        estimate = f"{more['more']:.1f} [{more['low']:.1f}, {more['high']:.1f}]"
        print(f"{seed:<8}{in_words(theirs, n):<18}{cells(values)}{row['cpu_s']:>8.0f}  "
              f"{ended}; {estimate}")  # fmt: skip
    common = [{k: v for k, v in each.items() if all(k in c for c in columns)} for each in columns]
    middle = medians(common)
    print(f"{'median':<26}{cells(middle)}")
    print(f"{'bar':<26}{cells(bars)}")
    for part, bar in bars.items():
        each = ", ".join(judged(c[part], bar) if part in c else "not judged" for c in columns)
        whole = judged(middle[part], bar) if part in middle else "not judged"
        print(f"  {part}: median {whole} (seeds: {each})")
    for kind in ("standard", "snn-cascade"):
        print(f"  suite {kind}, cascade: {in_words(find(name, kind, 0), n)}")


def cells(values: Mapping[str, float]) -> str:
    """Return the columns of a table row."""
    return "".join(f"{values[p]:>8.1f}" if p in values else f"{'-':>8}" for p in (*PARTS, "end"))


def print_calibration(names: Sequence[str], find: Find) -> None:
    """Print estimates beside what was found."""
    print("\ncalibration, seed 0: estimate at a number of gradients, and found with ten times more")
    print(f"{'network':<20}{'gradients':>10}{'left':>8}{'estimate':>22}{'until':>10}{'found':>8}")
    for name in names:
        row = find(name, "calibration", 0)
        for pair in (row or {"pairs": []})["pairs"]:
            if pair is None:
                continue
            share = {k: 100 * v / row["n"] for k, v in pair.items() if k not in ("spent", "later")}
            estimate = f"{share['more']:.1f} [{share['low']:.1f}, {share['high']:.1f}]"
            print(f"{name:<20}{pair['spent']:>10.0f}{share['left']:>8.1f}{estimate:>22}"
                  f"{pair['later']:>10.0f}{share['found']:>8.1f}")  # fmt: skip
        if row is not None and not row["left"]:
            print(f"{name:<20}no sample is left")
