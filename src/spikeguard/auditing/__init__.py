"""The audit: small checks, each with a code, and one verdict on a robustness number."""

from __future__ import annotations

from spikeguard.auditing.auditor import audit, reported
from spikeguard.auditing.check import Check, CheckOutcome, does_not_apply, judged, not_run
from spikeguard.auditing.context import Attacked, Context
from spikeguard.auditing.findings import REQUIRED, Finding, Verdict, conclude
from spikeguard.auditing.numbers import Bound, Claim, PrintedNumber
from spikeguard.auditing.registry import CHECKS
from spikeguard.auditing.subject import Budget, Provenance

__all__ = [
    "Attacked",
    "Bound",
    "Budget",
    "CHECKS",
    "Check",
    "Context",
    "Finding",
    "CheckOutcome",
    "Claim",
    "PrintedNumber",
    "Provenance",
    "REQUIRED",
    "Verdict",
    "audit",
    "conclude",
    "does_not_apply",
    "judged",
    "not_run",
    "reported",
]
