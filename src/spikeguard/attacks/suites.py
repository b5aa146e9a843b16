"""Suites of attacks by name, each a dictionary ``{name: attack}``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache

from spikeguard.attacks.base import Attack
from spikeguard.attacks.registry import ATTACKS
from spikeguard.attacks.suitability import require_threats, suitable
from spikeguard.attacks.suite_definitions import CASCADES, SUITES, SuiteSettings
from spikeguard.attacks.threat_names import ALL_THREATS, is_event_norm, threat_of

__all__ = ["CASCADES", "SUITES", "attack_by_name", "attack_names", "suitable", "suite"]


def suite(
    name: str,
    *,
    eps: float,
    norm: str = "linf",
    eot: int = 1,
    widths: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    steps: int = 40,
) -> dict[str, Attack]:
    """Return a suite of attacks.

    Args:
        name: One of ``SUITES``.
        eps: Radius of the threat set.
        norm: "linf", "l2", "l1", or a threat on events, see ``threat_of``.
        eot: Gradients averaged in every step, >= 1; more than 1 for stochastic models.
        widths: Half-widths of the attacker's triangular surrogate, in suites that sweep them.
        steps: Gradient steps of the sweep in "surrogates" and "demo".

    Raises:
        ValueError: If the name or the norm is unknown, or a number is out of range.
    """
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        if name.partition(" ")[0] in ATTACKS:
            hint = f" It is an attack: write --attack {name!r}."
        raise ValueError(f"suite: unknown suite {name!r}.{hint} Known: {', '.join(SUITES)}.")
    if norm.partition(" ")[0] not in ALL_THREATS:
        raise ValueError(f"suite: norm is one of {', '.join(ALL_THREATS)}; got {norm!r}.")
    if eot < 1:
        raise ValueError(f"suite: eot counts gradients, >= 1, got {eot}.")
    if len(set(widths)) < len(widths):
        raise ValueError(f"suite: widths must differ, got {list(widths)}.")
    threat = threat_of(norm, eps)
    attacks = SUITES[name](SuiteSettings(threat, eot, tuple(widths), steps))
    try:
        require_threats(attacks.values())
    except ValueError as error:
        raise ValueError(f"suite: {name}: {error}") from error
    return attacks


def attack_by_name(name: str, *, eps: float, norm: str = "linf", eot: int = 1) -> Attack:
    """Return one attack by its name in a suite, such as "pgd40" or "sapgd/assg".

    If several suites use the name, "papers" comes first, then "snn-cascade".

    Raises:
        ValueError: As :func:`suite`, or if no suite has an attack of this name.
    """
    known = _known(eps, norm, eot)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"attack: unknown attack {name!r}.{hint} Known: {', '.join(known)}.")
    return known[name]


@cache
def attack_names() -> tuple[str, ...]:
    """Return the names that suites give to their attacks."""
    return tuple(_known(0.1, "linf", 1))


def _known(eps: float, norm: str, eot: int) -> dict[str, Attack]:
    known: dict[str, Attack] = {}
    for suite_name in ("papers", "snn-cascade", *SUITES):
        try:
            known = suite(suite_name, eps=eps, norm=norm, eot=eot) | known
        except ValueError:
            if not is_event_norm(norm):  # a suite of attacks on images
                raise
    known.pop("snn", None)  # a search over many attacks
    return known
