"""The two numbers that an audit judges: the printed number, and the bound on robust accuracy."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from spikeguard.auditing.tolerances import percent
from spikeguard.evaluation.estimates import Estimate, rounded
from spikeguard.evaluation.statistics import Score

__all__ = ["MAX_GAP", "Bound", "BoundStatus", "Claim", "PrintedNumber", "PrintedStatus", "judge"]

MAX_GAP = 0.02  # a printed number this far above the bound, as a share, is not called too high

PrintedStatus = Literal["refuted", "within", "not judged"]
BoundStatus = Literal["no fault found", "faulty", "open"]


_NUMBER = r"(\d[\d,]*+)(?![\w.]|\s+\d)"  # not 10k, 1e4 or 10 000, which are not read
_ALONE = r"(?<![\w/.,=-])(?<![=:]\s)"  # not a part of 8/255, 0.031, CIFAR-10, T=4 or T = 4
_KIND = (  # as in "1000 CIFAR-10 test images"; "40 steps on CIFAR-10 images" has no number of them
    r"(?:(?:[\w-]*[A-Z\d][\w-]*|mnist|svhn|test|val|validation|training|clean|"
    r"random|randomly|chosen|correct|correctly|classified|held-out)\s+)*"
)
_NAME_AND_NUMBER = re.compile(r"(?<![\w-])\w*[A-Z]\w*[A-Z]\w*\s+\d+\s")  # as in "CIFAR 10 images"


@dataclass(frozen=True)
class Claim:
    """A robust accuracy that was measured elsewhere, for example in a paper.

    Args:
        accuracy: The accuracy, in [0, 1].
        n: Number of images that it was measured on, >= 1.
        protocol: The attack behind it, in words.

    Raises:
        ValueError: If a number is out of range.
    """

    accuracy: float
    n: int
    protocol: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.accuracy) and 0 <= self.accuracy <= 1):
            raise ValueError(
                f"Claim: accuracy is a share in [0, 1], got {self.accuracy:g}; write Claim(0.623, "
                "n=1000) for 62.3 %."
            )
        if self.n < 1:
            raise ValueError(f"Claim: n counts images, >= 1, got {self.n}.")

    @classmethod
    def from_text(cls, percentage: float, protocol: str = "", n: int | None = None) -> Claim:
        """Return the claim with a percentage; the protocol may hold the number of images.

        Example:
            >>> Claim.from_text(62.3, "PGD-20 8/255, n 1000").n
            1000
        """
        plain = _NAME_AND_NUMBER.sub("", protocol)
        written = re.search(rf"\bn\s*[=:]?\s*{_NUMBER}|{_ALONE}{_NUMBER}\s+{_KIND}images", plain)
        if n is None and written is None:
            raise ValueError(
                f"printed: the number of images is missing in {protocol!r}; write 'PGD-20 8/255, "
                "n 1000' or --printed-n 1000."
            )
        if n is None and written is not None:
            n = int((written[1] or written[2]).replace(",", ""))
        assert n is not None
        if not 0 <= percentage <= 100:
            raise ValueError(f"printed: a percentage in [0, 100], got {percentage:g}.")
        return cls(percentage / 100, n, protocol)

    def require_radius(self, eps: float) -> None:
        """Reject a protocol that names another radius, in 1/255, than the audited one."""
        written = re.findall(r"(\d+(?:\.\d+)?)\s*/\s*255", self.protocol)  # a step size too
        if written and not any(math.isclose(float(k) / 255, eps, rel_tol=1e-6) for k in written):
            raise ValueError(
                f"printed: the protocol {self.protocol!r} is at {written[-1]}/255, the audit at "
                f"{eps:g}; audit with --eps {written[-1]}/255."
            )


@dataclass(frozen=True)
class PrintedNumber:
    """The number that a paper would print, and its distance to the bound. Shares in [0, 1].

    Attributes:
        attack: The attack or the protocol behind the number, in words.
        status: "refuted" when the whole interval of the gap is above ``max_gap``, else "within";
            "not judged" where the number or the bound could not be measured.
        value: The accuracy; None where it was not measured.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Number of images.
        gap: Printed accuracy minus the bound.
        gap_low: Lower end of the gap's 95 % interval; see ``evaluation.estimates``.
        gap_high: Upper end.
        paired: Whether both numbers are of the same images.
        max_gap: The gap that is accepted.
        why: What the checks found about this attack, or why it was not judged; may be empty.
    """

    attack: str
    status: PrintedStatus
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    paired: bool = True
    max_gap: float = MAX_GAP
    why: str = ""

    @property
    def statement(self) -> str:
        """The judgement as one sentence, with the number of images and the intervals."""
        if self.value is None or self.low is None or self.high is None:
            return f"{self.attack}: not judged, {self.why or 'it was not measured'}."
        number = f"{self.attack}: {percent(self.value)} {_interval(self.low, self.high)}"
        counted = f"n = {self.n}"
        if self.gap is None or self.gap_low is None or self.gap_high is None:
            return f"{number} is not judged ({counted}): {self.why or 'there is no bound'}."
        because = f"; {self.why}" if self.why else ""
        gap = f"{_points(self.gap)} {_interval(self.gap_low, self.gap_high)}"
        if self.status == "refuted":
            return f"{number} is {gap} too high ({counted}){because}."
        if self.gap_high < 0:
            below = f"{_points(-self.gap)} {_interval(-self.gap_high, -self.gap_low)}"
            return (
                f"{number} is {below} below the bound ({counted}): its attack is stronger than all "
                f"attacks of this audit{because}."
            )
        return (
            f"{number} is within what {self.n} images can tell: {gap} above the bound "
            f"({counted}){because}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the number as plain data."""
        return {**asdict(self), "statement": self.statement}


@dataclass(frozen=True)
class Bound:
    """The upper bound on robust accuracy: the per-sample worst of all attacks. Shares in [0, 1].

    Attributes:
        status: "faulty" when a check that decides failed, else "open" when one did not decide or
            did not run, else "no fault found".
        value: The accuracy; None when no attack ran or no accuracy can be used.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Number of images.
        checks: Number of checks that passed or failed.
        sources: The attacks and the search of the audit, and the stored results, that it is the
            worst of.
        why: The fault, or the open checks; may be empty.
    """

    status: BoundStatus
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    checks: int = 0
    sources: tuple[str, ...] = ()
    why: str = ""

    @property
    def statement(self) -> str:
        """The judgement as one sentence, with the number of images and the interval."""
        head = "Bound"
        if self.value is not None and self.low is not None and self.high is not None:
            among = f", worst of {' and '.join(self.sources)}" if self.sources else ""
            head = (
                f"Bound: at most {percent(self.value)} {_interval(self.low, self.high)} "
                f"(n = {self.n}{among})"
            )
        if self.status == "no fault found":
            words = f"no fault found in {self.checks} checks"
            return f"{head}: {words}{f'; {self.why}' if self.why else ''}."
        return f"{head}: {self.status}: {self.why}."

    def to_json(self) -> dict[str, Any]:
        """Return the bound as plain data."""
        return {**asdict(self), "statement": self.statement}


def judge(
    attack: str,
    score: Score,
    bound: Score | None,
    gap: Estimate | None,
    *,
    paired: bool,
    max_gap: float,
) -> PrintedNumber:
    """Return the judgement on a printed number.

    Args:
        attack: The attack or the protocol behind it, in words.
        score: The printed number.
        bound: The bound, or None.
        gap: Printed number minus bound, or None.
        paired: Whether both are of the same images.
        max_gap: The gap that is accepted, as a share.
    """
    number = (attack, score.accuracy, *score.interval, score.n)
    name, value, low, high, n = number
    if bound is None or gap is None:
        return PrintedNumber(name, "not judged", value, low, high, n, max_gap=max_gap)
    status: PrintedStatus = "refuted" if gap.low > max_gap else "within"
    ends = (gap.value, gap.low, gap.high)
    return PrintedNumber(name, status, value, low, high, n, *ends, paired, max_gap)


def _points(share: float) -> str:
    number = rounded(share)
    return f"{number} point{'' if number == '1' else 's'}"


def _interval(low: float, high: float) -> str:
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
