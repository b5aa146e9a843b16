"""Reader for ``audit.json``: the verdict, and the curves stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from spikeguard.auditing.findings import Finding, FindingStatus, Verdict
from spikeguard.auditing.numbers import Bound, BoundStatus, PrintedNumber, PrintedStatus
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting.readers.audit_evidence import Evidence, evidence
from spikeguard.reporting.readers.json_files import (
    of_other_checkpoint,
    read_json,
    reading,
    require_weights,
)
from spikeguard.storage.digests import IDENTITY

__all__ = ["audits_other_checkpoint", "read_audited", "read_evidence"]

_EARLIER: dict[str, BoundStatus] = {
    "reliable": "no fault found",
    "unreliable": "faulty",
    "inconclusive": "open",
}
_EVENTS = "S19"  # adversarial events are events


def read_audited(path: Path, weights: Mapping[str, str] | None = None) -> Verdict:
    """Read ``audit.json``.

    Args:
        path: The file.
        weights: Digests of the checkpoints by name; an audit of other weights is rejected.
    """
    card = read_json(path)
    require_weights(card, weights or {}, path, "audit")
    with reading(path):
        findings = tuple(filter(_concerns, map(_finding, card["findings"])))
        settings = dict(card.get("settings") or {})
        if "bound" not in card:
            return replace(_earlier(card, findings, settings), verified=False)
        stored = {name: value for name, value in card["bound"].items() if name != "statement"}
        stored["sources"] = tuple(stored["sources"])
        bound, printed = Bound(**stored), card["printed"]
        _one_of(bound.status, get_args(BoundStatus))
        if printed is not None:
            number = {name: value for name, value in printed.items() if name != "statement"}
            printed = PrintedNumber(**number)
            _one_of(printed.status, get_args(PrintedStatus))
        return Verdict(findings, bound, printed, settings, verified=IDENTITY in card)


def audits_other_checkpoint(path: Path, weights: Mapping[str, str], wanted: str | None) -> bool:
    """Whether ``audit.json`` is of another checkpoint than the one that the recipe attacks.

    Args:
        path: The file.
        weights: Digests of the checkpoints by name.
        wanted: The checkpoint that the recipe attacks; None for a foreign model.
    """
    card = read_json(path)
    with reading(path):
        made_with = dict(card.get(IDENTITY) or {}).get("weights")
    return of_other_checkpoint(made_with, card.get("checkpoint"), weights, wanted)


def _earlier(
    card: Mapping[str, Any], findings: tuple[Finding, ...], settings: Mapping[str, Any]
) -> Verdict:
    """Read an audit that judged one number: the worst of its own attacks."""
    status = _EARLIER[_one_of(card["status"], tuple(_EARLIER))]
    value, n = card.get("upper_bound"), settings.get("samples")
    bound = Bound(status)
    if value is not None and n is not None:
        score = Score.from_share(float(value), int(n))
        bound = Bound(status, score.accuracy, *score.interval, score.n)
    return Verdict(findings, bound, None, settings, earlier=str(card["sentence"]))


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


def _concerns(finding: Finding) -> bool:
    """Whether a finding concerns the data: a check of events says nothing about images."""
    return not (finding.code == _EVENTS and finding.status == "does not apply")


def _one_of(word: Any, known: tuple[Any, ...]) -> Any:
    if word not in known:
        raise ValueError(f"unknown status {word!r}; known: {', '.join(known)}")
    return word
