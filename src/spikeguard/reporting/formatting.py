"""Number formats of the report: one function for each kind of number or name."""

from __future__ import annotations

import re
import shlex

from spikeguard.attacks.threat_names import is_event_norm, threat_line
from spikeguard.config.schema import eps_text
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting.names import attack, search

__all__ = [
    "attack",
    "count",
    "duration",
    "interval",
    "norm",
    "threat_options",
    "percent",
    "points",
    "radius",
    "scored",
    "search",
    "shell",
    "unbroken",
]

_NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}


def percent(share: float) -> str:
    """Write a share in [0, 1]: "61.4 %"."""
    return f"{100 * share:.1f} %"


def interval(score: Score) -> str:
    """Write a 95 % interval: "[57.0, 65.6]"."""
    return f"[{100 * score.low:.1f}, {100 * score.high:.1f}]"


def scored(score: Score) -> str:
    """Write an accuracy with its interval: "61.4 % [57.0, 65.6]"."""
    return f"{percent(score.accuracy)} {interval(score)}"


def points(difference: float) -> str:
    """Write a difference of two shares: "29.0 points"."""
    return f"{100 * difference:.1f} points"


def count(number: float) -> str:
    """Write a number of images: "1,234"; a sum of shares with one decimal."""
    return f"{number:,.{0 if float(number).is_integer() else 1}f}"


def duration(seconds: float) -> str:
    """Write a time: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def norm(name: str) -> str:
    """Write a norm, with its words if it has some: "L∞", "L∞ peak=4"."""
    kind, blank, words = name.partition(" ")
    return f"{_NORMS.get(kind, kind)}{blank}{words}"


def radius(eps: float, norm: str = "") -> str:
    """Write a radius, "ε = 8/255", or a threat set on events, "edits budget=20"."""
    return threat_line(norm, eps) if is_event_norm(norm) else f"ε = {eps_text(eps)}"


def threat(norm_: str, eps: float) -> str:
    """Write a threat set: "L∞, ε = 8/255", or "edits budget=20"."""
    given = radius(eps, norm_)
    return given if is_event_norm(norm_) else f"{norm(norm_)}, {given}"


def threat_options(norm: str, eps: float) -> list[str]:
    """Return the options of a command that name a threat set; a norm with words needs one line."""
    if is_event_norm(norm) or " " in norm:
        return ["--threat", threat_line(norm, eps)]
    return ["--norm", norm, "--eps", eps_text(eps)]


def unbroken(text: str) -> str:
    """Keep numbers and their per cent signs on one line: "50 %" with a no-break space."""
    return re.sub(r"(?<=\d) %", "\u00a0%", text)


def shell(*parts: str) -> str:
    """Write a command line, quoted for a shell."""
    return shlex.join(parts)
