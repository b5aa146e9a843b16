"""The result of an audit: a Finding for every check, and the Verdict drawn from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from spikeguard.auditing.tolerances import percent
from spikeguard.storage.atomic_files import write_json

__all__ = ["REQUIRED", "Finding", "FindingStatus", "Verdict", "VerdictStatus", "conclude"]

FindingStatus = Literal["pass", "fail", "not run", "does not apply"]
VerdictStatus = Literal["reliable", "unreliable", "inconclusive"]

REQUIRED = (
    *("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11"),
    *("G15", "G27", "G28", "G29", "G30", "S1", "S4", "S6", "S11", "S15"),
)
"""The checks that decide the verdict. A failure of another check is a warning."""

# The failure that explains the others: invalid numbers first, then broken models, weak attacks.
_HEADLINES = (
    *("G27", "S1", "G29", "G28", "G19", "G16", "S4", "S5", "G15", "S6", "S11", "G2", "S15", "G3"),
    *("G5", "G6", "G7", "G1", "G4", "G10", "G11", "G8", "G9", "G30"),
)
_BROKEN = ("G27", "S1", "G29", "G28")  # if one of these fails, no accuracy can be used


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        code: The check's key in ``CHECKS``.
        title: The statement that holds for a sound model and a working attack.
        status: "pass", "fail", "not run", or "does not apply" to this model.
        measured: The measurement, in words and numbers.
        threshold: The condition under which the check passes.
        meaning: The conclusion from the measurement, as one plain clause.
        remedy: How to repair the fault; empty when the check passed.
        evidence: The numbers behind it, as plain data.
        seconds: Duration of the check.
    """

    code: str
    title: str
    status: FindingStatus
    measured: str
    threshold: str = ""
    meaning: str = ""
    remedy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether a robustness number can be believed.

    Attributes:
        status: "unreliable" when a required check failed, else "inconclusive" when one did not run,
            else "reliable"; see ``REQUIRED``.
        findings: One per check, in the order of the checks.
        sentence: The verdict as one sentence.
        upper_bound: Accuracy under the per-sample worst of the audit's attacks at the audited eps,
            in [0, 1]: an upper bound on robust accuracy; None when no attack ran.
        settings: Settings of the audit.
    """

    status: VerdictStatus
    findings: tuple[Finding, ...]
    sentence: str
    upper_bound: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reliable(self) -> bool:
        """Whether every required check that applies ran and passed."""
        return self.status == "reliable"

    @property
    def failed(self) -> tuple[str, ...]:
        """Codes of the checks that failed."""
        return tuple(f.code for f in self.findings if f.status == "fail")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Codes of the failed checks that do not decide the verdict."""
        return tuple(code for code in self.failed if code not in REQUIRED)

    def table(self) -> str:
        """Return the findings as aligned plain text, with threshold and remedy of each failure."""
        rows = [("check", "result", "what should hold", "measured")]
        rows += [(f.code, _SHOWN[f.status], f.title, f.measured) for f in self.findings]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = []
        for row, finding in zip(rows, (None, *self.findings), strict=True):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[3]]).rstrip())
            if finding is not None and finding.status == "fail":
                lines += [f"{' ' * widths[0]}  passes when: {finding.threshold}"]
                lines += [f"{' ' * widths[0]}  remedy: {finding.remedy}"]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data, valid as strict JSON."""
        return {
            "status": self.status,
            "reliable": self.reliable,
            "sentence": self.sentence,
            "upper_bound": self.upper_bound,
            "settings": _plain(self.settings),
            "findings": [_plain(asdict(finding)) for finding in self.findings],
        }

    def save(self, path: str | Path) -> None:
        """Write the verdict as JSON, atomically."""
        write_json(path, self.to_json())


_SHOWN: dict[FindingStatus, str] = {
    "pass": "pass",
    "fail": "FAIL",
    "not run": "not run",
    "does not apply": "-",
}


def conclude(
    findings: Sequence[Finding],
    *,
    upper_bound: float | None = None,
    single: float | None = None,
    reported: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Verdict:
    """Return the verdict from the required checks; failures of all other checks become warnings.

    Args:
        findings: One per check; a required check without a finding counts as not run.
        upper_bound: Accuracy under the per-sample worst of all attacks.
        single: Accuracy under one run of PGD, the number that a paper would print.
        reported: Accuracy under the attack passed as the reported one, or None.
        settings: Settings of the audit.
    """
    found = tuple(findings)
    statuses = {f.code: f.status for f in found}
    failed = [f for f in found if f.status == "fail"]
    decisive = [f for f in failed if f.code in REQUIRED]
    skipped = [code for code in REQUIRED if statuses.get(code, "not run") == "not run"]
    bound = _bound(upper_bound, single)
    warned = sorted((f for f in failed if f.code not in REQUIRED), key=_rank)
    warning = f"; but {warned[0].meaning} ({_codes(warned)})" if warned else ""
    ran = sum(f.status in ("pass", "fail") for f in found)
    status: VerdictStatus = "reliable"
    signs = "no required check saw" if warned else "no sign of"
    sentence = (
        f"Reliable as far as {ran} checks can tell: {signs} hidden gradients or a weak "
        f"attack{bound}{warning}."
    )
    if decisive:
        status = "unreliable"
        sentence = f"Unreliable: {_explained(failed, upper_bound, reported)} ({_codes(failed)})."
    elif skipped:
        status = "inconclusive"
        why = next((f.measured for f in found if f.code == skipped[0]), "left out")
        sentence = (
            f"Inconclusive: no required check failed, but {', '.join(skipped)} did not run "
            f"({why}){bound}{warning}."
        )
    return Verdict(status, found, sentence, upper_bound, {} if settings is None else settings)


def _bound(upper_bound: float | None, single: float | None) -> str:
    bound = ""
    if upper_bound is not None:
        bound = (
            f"; robust accuracy is at most {percent(upper_bound)}, the worst of all attacks made"
        )
    if single is not None:
        bound += f" ({percent(single)} under one PGD alone)"
    return bound


def _explained(failed: Sequence[Finding], upper_bound: float | None, reported: float | None) -> str:
    """Return which number is wrong, why, and the upper bound to use instead."""
    headline = min(failed, key=_rank)
    if headline.code in _BROKEN or upper_bound is None:
        return headline.meaning
    number = ""
    if reported is not None and any(f.code == "G30" for f in failed):
        number = f"{percent(reported)} under the reported attack is too high: "
    return (
        f"{number}{headline.meaning}; robust accuracy is at most {percent(upper_bound)}, the worst "
        "of all attacks made"
    )


def _codes(findings: Sequence[Finding]) -> str:
    return ", ".join(finding.code for finding in findings)


def _rank(finding: Finding) -> int:
    return _HEADLINES.index(finding.code) if finding.code in _HEADLINES else len(_HEADLINES)


def _plain(value: Any) -> Any:
    """Convert evidence to strict JSON; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
