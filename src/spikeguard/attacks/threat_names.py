"""Threat sets by name: ``threat_of("flips", 50)``, and lines such as ``"flips budget=50"``.

The norm and the radius of a threat set name it in recipes, results and file names. The radius is
the first field of the set: eps, the budget, or the largest shift. Further fields are words of the
norm: ``"retiming total=20"``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from spikeguard.attacks.event_threats.counts import Counts
from spikeguard.attacks.event_threats.edits import Edits
from spikeguard.attacks.event_threats.flips import Flips
from spikeguard.attacks.event_threats.retiming import Retiming
from spikeguard.attacks.threat import THREATS, Threat
from spikeguard.system.pixel_units import fraction_text

__all__ = [
    "ALL_THREATS",
    "EVENT_THREATS",
    "is_event_norm",
    "norm_of",
    "parse_threat",
    "threat_line",
    "threat_of",
]

EVENT_THREATS: dict[str, type[Flips | Edits | Counts | Retiming]] = {
    "flips": Flips,
    "edits": Edits,
    "counts": Counts,
    "retiming": Retiming,
}
ALL_THREATS: dict[str, type[Any]] = {**THREATS, **EVENT_THREATS}


def is_event_norm(norm: str) -> bool:
    """Whether a norm is of a threat set on events."""
    return norm.partition(" ")[0] in EVENT_THREATS


def threat_of(norm: str, eps: float) -> Threat:
    """Return the threat set of a norm and a radius.

    Args:
        norm: A name in ``ALL_THREATS``, and words ``field=value`` of further fields.
        eps: The first field of the set; budgets are whole numbers.

    Raises:
        ValueError: If a name is unknown, or a value is rejected.

    Example:
        >>> threat_of("flips", 50), threat_of("retiming total=20", 1)
        (Flips(budget=50), Retiming(max_shift=1, total=20, moved=None))
    """
    name, *words = norm.split() or [""]
    kind = _kind(name)
    first = fields(kind)[0].name
    given = _values(kind, words)
    if first in given:
        raise ValueError(f"{name}: {first} is the radius, not a word of the norm {norm!r}")
    return _made(kind, {first: _whole(eps), **given})


def parse_threat(line: str) -> tuple[str, float]:
    """Read a line such as ``"flips budget=50"``; return the norm and the radius.

    Raises:
        ValueError: If the line is no threat set; the message says what to write.

    Example:
        >>> parse_threat("retiming max_shift=1 total=20")
        ('retiming total=20', 1.0)
    """
    name, *words = line.split() or [""]
    kind = _kind(name)
    first = fields(kind)[0].name
    given = _values(kind, words)
    if first not in given:
        raise ValueError(f'{name} needs {first}; write "{name} {first}=..."')
    threat = _made(kind, given)
    more = [f"{f.name}={given[f.name]!r}" for f in fields(kind)[1:]
            if f.name in given and given[f.name] != f.default]  # fmt: skip
    return " ".join([name, *more]), float(threat.eps)


def _kind(name: str) -> type[Any]:
    if name in ALL_THREATS:
        return ALL_THREATS[name]
    close = difflib.get_close_matches(name, ALL_THREATS, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"norm is one of {', '.join(ALL_THREATS)}; got {name!r}.{hint}")


def _values(kind: type[Any], words: list[str]) -> dict[str, Any]:
    """Read the words ``field=value`` of a threat set."""
    found: dict[str, Any] = {}
    known = [f.name for f in fields(kind)]
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in known:
            needed = [f.name for f in fields(kind) if f.default is MISSING]
            raise ValueError(
                f"{kind.__name__} has {', '.join(known)}, got {word!r}; "
                f'write for example "{kind.__name__.lower()} {needed[0]}=1"'
            )
        if key in found:
            raise ValueError(f"{key} is given twice")
        found[key] = _number(key, text)
    return found


def _number(key: str, text: str) -> float:
    top, over, bottom = text.partition("/")
    try:
        return _whole(float(top) / float(bottom) if over else float(top))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{key} is a number, got {text!r}") from None


def _whole(value: float) -> float:
    """Return a whole number as int."""
    return int(value) if float(value).is_integer() else value


def _made(kind: type[Any], given: Mapping[str, Any]) -> Threat:
    threat: Threat = kind(**given)
    return threat


def norm_of(threat: Threat) -> str:
    """Return the norm of a threat set with the words that :func:`threat_of` needs.

    Example:
        >>> norm_of(threat_of("linf peak=16", 0.5)), norm_of(threat_of("flips", 3))
        ('linf peak=16', 'flips')
    """
    peak = getattr(threat, "peak", 1.0)
    return threat.norm if peak == 1 else f"{threat.norm} peak={_whole(peak)!r}"


def threat_line(norm: str, eps: float) -> str:
    """Return the line of a norm and a radius, which :func:`parse_threat` reads.

    Example:
        >>> threat_line("retiming total=20", 1.0)
        'retiming max_shift=1 total=20'
    """
    name, *words = norm.split()
    first = fields(_kind(name))[0].name
    return " ".join([name, f"{first}={fraction_text(eps)}", *words])
