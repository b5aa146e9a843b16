"""Findings of an audit in groups, the decisive ones first, and a description of each check."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from spikeguard.auditing.findings import REQUIRED, Finding, Verdict
from spikeguard.auditing.registry import CHECKS, QUESTIONS
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.sections.verdict_cards import Badge, badge

__all__ = ["About", "Group", "abouts", "by_question", "finding_badge", "groups", "tally"]

_WARNING = Badge("!", "warning", "open")
_OTHER = "Other checks"  # of an audit of another version


@dataclass(frozen=True)
class Group:
    """Findings with the same effect on the verdict.

    Attributes:
        title: Heading, with the number of findings.
        note: Their effect on the verdict.
        tone: "bad", "open" or "plain"; sets the colour.
        shown: Whether the group is unfolded on the page.
        findings: The findings, in the order of the audit.
    """

    title: str
    note: str
    tone: str
    shown: bool
    findings: tuple[Finding, ...]

    @property
    def questions(self) -> dict[str, list[Finding]]:
        """The findings by the question that their checks ask, in the order of the audit."""
        return by_question(self.findings)


class _Coded(Protocol):
    @property
    def code(self) -> str: ...


_Any = TypeVar("_Any", bound=_Coded)


@dataclass(frozen=True)
class About:
    """Description of a check, from its docstring.

    Attributes:
        code: Code of the check.
        question: The question that it helps to answer.
        title: The property it checks.
        decides: Whether a failure makes the bound "faulty".
        text: Why the property matters.
        source: Publication behind it.
    """

    code: str
    question: str
    title: str
    decides: bool
    text: str
    source: str


def groups(verdict: Verdict) -> list[Group]:
    """Group the findings of an audit: failed, warnings, not run, passed, does not apply."""
    parts = (
        ("fail", True, "Failed", "Each of these shows a fault in the bound.", "bad", True),
        ("fail", False, "Warnings", "Failed, but without effect on the bound.", "open", True),
        (
            *("open", True, "Open"),
            *("More images are needed to decide these: the bound stays open.", "open", True),
        ),
        (
            *("not run", True, "Not run, though needed to judge the bound"),
            *("These questions are open, and so is the bound.", "open", True),
        ),
        (
            *("open", False, "Open, without effect on the bound"),
            *("More images are needed to decide these.", "plain", False),
        ),
        (
            *("not run", False, "Not run"),
            *("These questions are open; the bound does not depend on them.", "plain", False),
        ),
        ("pass", None, "Passed", "", "plain", False),
        (
            *("does not apply", None, "Does not apply"),
            *("These checks do not concern this network: no question is open.", "plain", False),
        ),
    )
    found = []
    for status, decides, title, note, tone, shown in parts:
        chosen = tuple(
            finding
            for finding in verdict.findings
            if finding.status == status and decides in (None, finding.code in REQUIRED)
        )
        if chosen:
            found.append(Group(f"{title} ({len(chosen)})", note, tone, shown, chosen))
    return found


def by_question(items: Sequence[_Any]) -> dict[str, list[_Any]]:
    """Group things that have a check's ``code`` by its question; unknown codes come last."""
    found: dict[str, list[_Any]] = {}
    for question, codes in QUESTIONS.items():
        chosen = [item for item in items if item.code in codes]
        if chosen:
            found[question] = chosen
    rest = [item for item in items if item.code not in CHECKS]
    return found | {_OTHER: rest} if rest else found


def tally(verdict: Verdict) -> str:
    """Count the findings of an audit in one line: "2 failed · 1 warning · 40 passed"."""
    statuses = [finding.status for finding in verdict.findings]
    warnings = len(verdict.warnings)
    counts = {
        "failed": statuses.count("fail") - warnings,
        "warning" + "s" * (warnings != 1): warnings,
        "passed": statuses.count("pass"),
        **({"open": statuses.count("open")} if "open" in statuses else {}),
        "not run": statuses.count("not run"),
        "not applicable": statuses.count("does not apply"),
    }
    return " · ".join(f"{number} {word}" for word, number in counts.items())


def finding_badge(finding: Finding | None) -> Badge:
    """Return the badge of a finding; a failure of a check that does not decide is a warning."""
    if finding is not None and finding.status == "fail" and finding.code not in REQUIRED:
        return _WARNING
    return badge(None if finding is None else finding.status)


def abouts(networks: Sequence[Network]) -> list[About]:
    """Describe the checks of the audits, in the order of the audit; unknown codes are left out."""
    verdicts = [network.audited for network in networks if network.audited is not None]
    codes = {finding.code for verdict in verdicts for finding in verdict.findings}
    return [_about(code) for code in CHECKS if code in codes]


def _about(code: str) -> About:
    title, *rest = (inspect.getdoc(CHECKS[code].measure) or code).split("\n\n")
    source = "".join(part for part in rest if part.startswith("Source:"))
    text = " ".join(part for part in rest if not part.startswith(("Source:", "Args:", "Raises:")))
    return About(
        code,
        next(question for question, codes in QUESTIONS.items() if code in codes),
        _line(title),
        code in REQUIRED,
        _line(text),
        _line(source).removeprefix("Source: "),
    )


def _line(text: str) -> str:
    return " ".join(text.replace("``", "").split())
