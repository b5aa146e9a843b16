"""Reader for ``audit.json``: the verdict, and the curves stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from spikeguard.auditing.findings import Finding, FindingStatus, Verdict, VerdictStatus
from spikeguard.reporting.readers.audit_evidence import Evidence, evidence
from spikeguard.reporting.readers.json_files import read_json, reading

__all__ = ["read_audited", "read_evidence"]


def read_audited(path: Path) -> Verdict:
    """Read ``audit.json``."""
    card = read_json(path)
    with reading(path):
        return Verdict(
            status=_one_of(card["status"], get_args(VerdictStatus)),
            findings=tuple(map(_finding, card["findings"])),
            sentence=str(card["sentence"]),
            upper_bound=card.get("upper_bound"),
            settings=dict(card.get("settings") or {}),
        )


def read_evidence(path: Path, verdict: Verdict) -> Evidence:
    """Read the curves of a verdict; ``path`` is its file and appears in errors."""
    with reading(path, "evidence: "):
        return evidence(verdict)


def _finding(entry: Mapping[str, Any]) -> Finding:
    words: dict[str, Any] = {key: str(entry[key]) for key in ("code", "title", "measured")}
    words |= {key: str(entry.get(key, "")) for key in ("threshold", "meaning", "remedy")}
    stored = entry.get("evidence") or {}
    if not isinstance(stored, Mapping):
        raise TypeError(f"evidence is an object, got {type(stored).__name__}")
    status = _one_of(entry["status"], get_args(FindingStatus))
    return Finding(status=status, evidence=stored, **words)


def _one_of(word: Any, known: tuple[Any, ...]) -> Any:
    if word not in known:
        raise ValueError(f"unknown status {word!r}; known: {', '.join(known)}")
    return word
