"""A check, the outcome that it returns, and the three ways to build an outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spikeguard.auditing.findings import Finding, FindingStatus

if TYPE_CHECKING:
    from spikeguard.auditing.context import Context

__all__ = [
    "Check",
    "Measure",
    "CheckOutcome",
    "does_not_apply",
    "judged",
    "not_run",
    "reason",
    "title",
]


_MORE = "audit more samples: a larger limit, if the data have them"


@dataclass(frozen=True)
class CheckOutcome:
    """The outcome of a check: a :class:`Finding` without the code and title of its check.

    Attributes:
        status: "pass", "fail", "open", "not run" or "does not apply".
        measured: The measurement, in words and numbers.
        threshold: The condition under which the check passes.
        meaning: The conclusion from the measurement, as one plain clause.
        remedy: How to repair the fault; empty when the check passed.
        evidence: The numbers behind it, as plain data.
    """

    status: FindingStatus
    measured: str
    threshold: str = ""
    meaning: str = ""
    remedy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


Measure = Callable[["Context"], CheckOutcome]


@dataclass(frozen=True)
class Check:
    """One check of the audit: ``check(context) -> Finding``.

    Args:
        measure: The function that measures and judges. The first line of its docstring is the
            check's title: the statement that should hold.
        cost: Approximate gradient evaluations per sample in a full audit. Attacks that an earlier
            check ran cost nothing.
        quick: Whether the quick budget includes the check.
        wide: Whether the check attacks nothing and uses up to 512 samples at once.
        code: The check's key in ``CHECKS``, set there.
    """

    measure: Measure
    cost: float
    quick: bool = True
    wide: bool = False
    code: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", f"{title(self.measure)}. Cost {self.cost:g}")

    def __call__(self, context: Context) -> Finding:
        """Run the check."""
        return self.finding(self.measure(context))

    def decide(self, contexts: Sequence[Context]) -> Finding:
        """Run the check on more and more samples until it is not open; at least one context."""
        for context in contexts:
            finding = self(context)
            if finding.status != "open":
                break
        return replace(finding, evidence={**finding.evidence, "images": len(context)})

    def finding(self, outcome: CheckOutcome) -> Finding:
        """Return an outcome as the finding of this check, with its code and title."""
        return Finding(
            self.code,
            title(self.measure),
            outcome.status,
            outcome.measured,
            outcome.threshold,
            outcome.meaning,
            outcome.remedy,
            outcome.evidence,
        )


def title(measure: Measure) -> str:
    """Return the first line of a check's docstring: the statement that should hold."""
    return (measure.__doc__ or measure.__name__).partition("\n")[0].strip().rstrip(".")


def reason(error: Exception) -> str:
    """Return the type of an exception and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def judged(
    *,
    failed: bool | None,
    measured: str,
    threshold: str,
    sound: str,
    fault: str,
    remedy: str,
    evidence: Mapping[str, Any],
) -> CheckOutcome:
    """Return a pass that means ``sound``, or a failure that means ``fault``, with its remedy.

    ``failed`` is None if the samples cannot decide; the outcome is then open.
    """
    if failed is None:
        undecided = f"the samples do not show whether {sound}"
        return CheckOutcome("open", measured, threshold, undecided, _MORE, evidence)
    return CheckOutcome(
        "fail" if failed else "pass",
        measured,
        threshold,
        fault if failed else sound,
        remedy if failed else "",
        evidence,
    )


def not_run(why: str, remedy: str = "") -> CheckOutcome:
    """Return the outcome of a check that could not measure anything; its question is unanswered."""
    return CheckOutcome("not run", why, remedy=remedy)


def does_not_apply(why: str) -> CheckOutcome:
    """Return the outcome of a check that has no meaning for this model; nothing is unanswered."""
    return CheckOutcome("does not apply", why)
