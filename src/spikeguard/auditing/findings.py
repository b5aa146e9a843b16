"""The result of an audit: a Finding for every check, and the Verdict on both numbers."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

from spikeguard.auditing.numbers import Bound, BoundStatus, PrintedNumber
from spikeguard.evaluation.result_files import PARTS
from spikeguard.evaluation.statistics import Score
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import sealed

__all__ = ["OF_PRINTED", "REQUIRED", "Finding", "FindingStatus", "Verdict", "conclude", "plain"]

FindingStatus = Literal["pass", "fail", "open", "not run", "does not apply"]

REQUIRED = (
    *("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11"),
    *("G15", "G27", "G28", "G29", "G30", "S1", "S4", "S6", "S11", "S15"),
)
"""The checks that judge the bound. A failure of another check is a warning."""

OF_PRINTED = ("G8", "G9", "G10", "G11", "G30")
"""Of these, the checks that judge the attack passed to the audit and not the bound."""

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
        status: "pass", "fail", "open" when the samples do not decide, "not run", or "does not
            apply" to this model.
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
    """Two judgements: on the number that a paper would print, and on the bound.

    Attributes:
        findings: One per check, in the order of the checks.
        bound: The per-sample worst of all attacks at the audited eps, and whether a fault was found
            in it; see ``REQUIRED``.
        printed: The printed number beside that bound; None where it was not measured.
        settings: Settings of the audit.
        earlier: Sentence of an audit that was stored before both numbers were judged; its bound is
            the worst of its own attacks. Empty for every new audit.
        verified: Whether the audit says what it was made with; a stored one of an older version
            does not.
    """

    findings: tuple[Finding, ...]
    bound: Bound
    printed: PrintedNumber | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    earlier: str = ""
    verified: bool = True

    @property
    def status(self) -> BoundStatus:
        """The judgement on the bound: "no fault found", "faulty" or "open"."""
        return self.bound.status

    @property
    def sentence(self) -> str:
        """Both judgements, one sentence each."""
        if self.earlier:
            return self.earlier
        printed = "" if self.printed is None else f"{self.printed.statement} "
        return f"{printed}{self.bound.statement}"

    @property
    def upper_bound(self) -> float | None:
        """The bound in [0, 1]; None when no attack ran or no accuracy can be used."""
        return self.bound.value

    @property
    def refuted(self) -> bool:
        """Whether the printed number is too high by more than chance."""
        return self.printed is not None and self.printed.status == "refuted"

    @property
    def reliable(self) -> bool:
        """Whether no fault was found in the bound and the printed number is not too high."""
        return self.status == "no fault found" and not self.refuted

    @property
    def failed(self) -> tuple[str, ...]:
        """Codes of the checks that failed."""
        return tuple(f.code for f in self.findings if f.status == "fail")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Codes of the failed checks that do not decide the verdict."""
        return tuple(code for code in self.failed if code not in REQUIRED)

    def table(self, width: int = 120) -> str:
        """Return the findings as aligned plain text, with threshold and remedy of each failure.

        Args:
            width: Columns that a line may take; longer cells are wrapped. At least 60.
        """
        rows = [("check", "result", "what should hold", "measured")]
        rows += [(f.code, _SHOWN[f.status], f.title, f.measured) for f in self.findings]
        code, result = (max(len(row[i]) for row in rows) for i in range(2))
        rest = max(width, 60) - code - result - 6
        held = min(max(len(row[2]) for row in rows), rest // 2)
        columns = (code, result, held, rest - held)
        lines = []
        for row, finding in zip(rows, (None, *self.findings), strict=True):
            lines += _wrapped(row, columns)
            if finding is not None and finding.status == "fail":
                for said in (f"passes when: {finding.threshold}", f"remedy: {finding.remedy}"):
                    lines += _wrapped(("", said), (code, max(width, 60) - code - 2))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data, valid as strict JSON."""
        return {
            "status": self.status,
            "reliable": self.reliable,
            "sentence": self.sentence,
            "printed": None if self.printed is None else plain(self.printed.to_json()),
            "bound": plain(self.bound.to_json()),
            "upper_bound": self.upper_bound,
            "settings": plain(self.settings),
            "findings": [plain(asdict(finding)) for finding in self.findings],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain data; the same as :meth:`to_json`."""
        return self.to_json()

    def save(self, path: str | Path, **extra: Any) -> None:
        """Write the verdict as JSON with a checksum, atomically; remove its unfinished checks.

        Args:
            path: The file.
            **extra: Further plain data for the file, such as the ``identity``.
        """
        path = Path(path)
        write_json(path, sealed({**self.to_json(), **extra}))
        folder = path.with_suffix("")  # the argument ``out`` of the audit
        if (folder / PARTS).is_dir():
            shutil.rmtree(folder / PARTS)
            if not any(folder.iterdir()):
                folder.rmdir()


_SHOWN: dict[FindingStatus, str] = {
    "pass": "pass",
    "fail": "FAIL",
    "open": "open",
    "not run": "not run",
    "does not apply": "-",
}


def conclude(
    findings: Sequence[Finding],
    *,
    bound: Score | None = None,
    sources: Sequence[str] = (),
    printed: PrintedNumber | None = None,
    passed_in: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Verdict:
    """Return the verdict: the required checks judge the bound, all others warn.

    Args:
        findings: One per check; a required check without a finding counts as not run.
        bound: Accuracy under the per-sample worst of all attacks.
        sources: The attacks behind it, in words.
        printed: The printed number, judged by its distance to the bound.
        passed_in: Whether the checks in ``OF_PRINTED`` tested an attack that was passed to the
            audit. They then explain the printed number and do not judge the bound.
        settings: Settings of the audit.
    """
    found = tuple(findings)
    of_printed = OF_PRINTED if passed_in else ()
    required = [code for code in REQUIRED if code not in of_printed]
    statuses = {f.code: f.status for f in found}
    failed = [f for f in found if f.status == "fail" and f.code not in of_printed]
    undecided = [code for code in required if statuses.get(code, "not run") in ("not run", "open")]
    warned = sorted((f for f in failed if f.code not in required), key=_rank)
    why = f"warning: {warned[0].meaning} ({_codes(warned)})" if warned else ""
    status: BoundStatus = "no fault found"
    if any(f.code in required for f in failed):
        status = "faulty"
        why = f"{min(failed, key=_rank).meaning} ({_codes(failed)})"
    elif undecided:
        status = "open"
        reasons = {f.code: f.measured for f in found}
        why = ", ".join(f"{code} ({reasons.get(code, 'left out')})" for code in undecided[:3])
        why += f" and {len(undecided) - 3} more" if len(undecided) > 3 else ""
    broken = next((f for f in failed if f.code in _BROKEN), None)
    score = None if bound is None or broken is not None else bound
    ran = sum(f.status in ("pass", "fail") and f.code not in of_printed for f in found)
    judged = Bound(status, checks=ran, why=why)
    if score is not None:
        judged = replace(judged, value=score.accuracy, low=score.low, high=score.high)
        judged = replace(judged, n=score.n, sources=tuple(sources))
    if printed is not None and broken is not None:
        no_use = f"no accuracy of this model can be used: {broken.meaning} ({broken.code})"
        printed = PrintedNumber(printed.attack, "not judged", max_gap=printed.max_gap, why=no_use)
    elif printed is not None:
        causes = sorted(
            (f for f in found if f.status == "fail" and f.code in of_printed), key=_rank
        )
        if causes:
            printed = replace(printed, why=f"{causes[0].meaning} ({_codes(causes)})")
    return Verdict(found, judged, printed, {} if settings is None else settings)


def _codes(findings: Sequence[Finding]) -> str:
    return ", ".join(finding.code for finding in findings)


def _rank(finding: Finding) -> int:
    return _HEADLINES.index(finding.code) if finding.code in _HEADLINES else len(_HEADLINES)


def plain(value: Any) -> Any:
    """Convert evidence to strict JSON; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _wrapped(cells: Sequence[str], columns: Sequence[int]) -> list[str]:
    """Return one row of a table as lines; each cell is wrapped in its column."""
    parts = [wrap(cell, column) or [""] for cell, column in zip(cells, columns, strict=True)]
    return [
        "  ".join(part.ljust(column) for part, column in zip(line, columns, strict=True)).rstrip()
        for line in zip_longest(*parts, fillvalue="")
    ]
