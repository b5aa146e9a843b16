"""Rows of the comparison, and their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeguard.benchmarking.peers import FLOOR, PEERS

__all__ = ["HEAD", "Row", "cells", "markdown", "notes", "rows"]

HEAD = ("network", "work", "variant", "ms", "vs best peer", "/ floor", "peak MiB", "/ best peer")


@dataclass(frozen=True)
class Row:
    """One variant on one piece of work; None where something was not measured.

    Attributes:
        network: Name of the network.
        work: "train", "pgd" or "eval".
        variant: "spikeguard/KERNEL", a peer, or "floor".
        ms: Median milliseconds.
        speed_up: Time of the fastest peer divided by this time; above 1 is faster.
        of_floor: This time divided by that of the ANN floor; below 1 is faster.
        mib: Peak memory in MiB.
        of_memory: This memory divided by that of the most economical peer; below 1 is less.
    """

    network: str
    work: str
    variant: str
    ms: float
    speed_up: float | None
    of_floor: float | None
    mib: float | None
    of_memory: float | None


def rows(cases: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Compute the rows from the stored cases."""
    found = []
    for key, case in cases.items():
        kind, _, place = key.partition("/")
        if kind != "time":
            continue
        network, _, work = place.partition("/")
        ms: Mapping[str, float] = case["ms"]
        mib = {name: cases.get(f"memory/{network}/{work}/{name}", {}).get("mib") for name in ms}
        fastest = min((ms[name] for name in PEERS if name in ms), default=None)
        least = min((m for name in PEERS if (m := mib.get(name)) is not None), default=None)
        for name, value in ms.items():
            found.append(
                Row(
                    network,
                    work,
                    name,
                    value,
                    _ratio(fastest, value),
                    _ratio(value, ms.get(FLOOR)),
                    mib[name],
                    _ratio(mib[name], least),
                )
            )
    return found


def notes(cases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line for each variant or number that was left out, without repeats."""
    lines = [line for case in cases.values() for line in case.get("refused", {}).values()]
    return list(dict.fromkeys(lines))


def cells(row: Row) -> tuple[str, ...]:
    """Return the text of a row, one cell for each column of ``HEAD``."""
    return (
        row.network,
        row.work,
        row.variant,
        f"{row.ms:.3g}" if row.ms < 100 else f"{row.ms:.0f}",
        "" if row.speed_up is None else f"{row.speed_up:.2f}x",
        "" if row.of_floor is None else f"{row.of_floor:.2f}",
        "" if row.mib is None else f"{row.mib:.0f}",
        "" if row.of_memory is None else f"{row.of_memory:.2f}",
    )


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return an aligned Markdown table."""
    lines = [list(head), *(list(line) for line in body)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    padded = (
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(f"| {line} |" for line in padded) + "\n"


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
