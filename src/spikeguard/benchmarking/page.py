"""Markdown page of the results, rewritten after every case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikeguard.benchmarking import scaling, table
from spikeguard.benchmarking import time_to_verdict as verdict
from spikeguard.benchmarking.store import Store
from spikeguard.storage.atomic_files import write_text

__all__ = ["PAGE", "further", "write_page"]

PAGE = "table.md"

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def further(cases: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Return the non-empty tables after the comparison, as (head, lines)."""
    found: list[Table] = [
        (scaling.HEAD, scaling.rows(cases)),
        (verdict.HEAD, verdict.rows(cases)),
    ]
    return [(head, lines) for head, lines in found if lines]


def _machine(identity: Mapping[str, Any]) -> str:
    """Return the GPU, or the processor and its threads."""
    if identity["device"] != "cpu":
        return str(identity["device"]).removeprefix("cuda: ")
    return f"{identity['cpu']}, {identity['threads']} threads"


def write_page(store: Store, folder: Path) -> None:
    """Write the page of all cases measured so far."""
    identity = store.identity
    peers = ", ".join(f"{name} {version or '-'}" for name, version in identity["peers"].items())
    parts = [
        f"{_machine(identity)}, torch {identity['torch']}, "
        f"SpikeGuard {identity['spikeguard']} ({identity['commit']}), {peers}.\n",
        table.markdown(table.HEAD, [table.cells(row) for row in table.rows(store.cases)]),
        *(table.markdown(head, lines) for head, lines in further(store.cases)),
        "".join(f"- {line}\n" for line in table.notes(store.cases)),
    ]
    write_text(folder / PAGE, "\n".join(part for part in parts if part))
