"""What a check is, and the ways it can end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spikeguard.auditing.findings import Finding, FindingStatus

if TYPE_CHECKING:
    from spikeguard.auditing.context import Context

__all__ = ["Check", "Measure", "does_not_apply", "judged", "not_run", "reason", "title"]

Measure = Callable[["Context"], Finding]


@dataclass(frozen=True)
class Check:
    """One check: ``check(context) -> Finding``.

    Args:
        measure: The function that measures and judges; the first line of its docstring says what
            should hold.
        cost: Gradient evaluations a sample, roughly, in a full audit. What another check made
            before is free.
        quick: Whether it belongs to the quick budget too.
    """

    measure: Measure
    cost: float
    quick: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", f"{title(self.measure)}. Cost {self.cost:g}")

    def __call__(self, context: Context) -> Finding:
        """Measure and judge."""
        return self.measure(context)


def title(measure: Measure) -> str:
    """Return the first line of a check's docstring: what should hold."""
    return (measure.__doc__ or measure.__name__).partition("\n")[0].strip().rstrip(".")


def reason(error: Exception) -> str:
    """Return what an exception says, in one line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def judged(
    code: str,
    measure: Measure,
    *,
    failed: bool,
    measured: str,
    threshold: str,
    sound: str,
    fault: str,
    remedy: str,
    evidence: Mapping[str, Any],
) -> Finding:
    """Return a finding that means ``sound`` or, if it failed, ``fault`` with its remedy."""
    return Finding(
        code,
        title(measure),
        "fail" if failed else "pass",
        measured,
        threshold,
        fault if failed else sound,
        remedy if failed else "",
        evidence,
    )


def not_run(code: str, measure: Measure, why: str, remedy: str = "") -> Finding:
    """Return a finding that nothing was measured, and why: the question stays open."""
    return _open(code, measure, "not run", why, remedy)


def does_not_apply(code: str, measure: Measure, why: str) -> Finding:
    """Return a finding that there is nothing to ask of this model, and why: no question is open."""
    return _open(code, measure, "does not apply", why, "")


def _open(code: str, measure: Measure, status: FindingStatus, why: str, remedy: str) -> Finding:
    return Finding(code, title(measure), status, why, remedy=remedy)
