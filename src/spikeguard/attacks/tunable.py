"""Settings of a suite's gradients that can be chosen: what is tried, how, and the suite with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from spikeguard.attacks.assg import ASSG
from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradient import Gradient, innermost
from spikeguard.attacks.pgd import PGD
from spikeguard.attacks.rules import HART

__all__ = ["CANDIDATES", "STEPS", "adjusted", "tunable"]

STEPS = 10  # of the PGD that tries a setting

_GAMMAS = (0.5, 0.1, 0.2, 0.35, 0.7, 1.0, 1.4, 2.0, 2.45)  # first what the suites have fixed:
_BOUNDS = (0.425, 0.35, 0.37, 0.39, 0.41, 0.44, 0.46, 0.48, 0.49)  # it stays among equals

CANDIDATES: dict[str, dict[str, Gradient]] = {
    "HART": {f"gamma {gamma:g}": HART(gamma) for gamma in _GAMMAS},
    "ASSG": {f"A {bound:g}": ASSG(bound) for bound in _BOUNDS},
}


def tunable(attacks: Mapping[str, Attack]) -> dict[str, Callable[[Gradient], Attack]]:
    """Return for each kind of gradient in a battery that has a setting what tries a candidate.

    A trial is PGD with ``STEPS`` steps in the battery's threat set, averaged over as many draws as
    the battery's own. The candidates of a kind are ``CANDIDATES[kind]``, over the range that the
    sources search.

    Source: Hao et al., ICLR 2024 (gamma 0.10 to 2.45); arXiv:2512.22522 (A 0.35 to 0.49).
    """
    found: dict[str, Callable[[Gradient], Attack]] = {}
    for attack in attacks.values():
        gradient = getattr(attack, "gradient", None)
        kind = type(innermost(gradient)).__name__
        if kind in CANDIDATES:
            found.setdefault(kind, _trial(attack, gradient))
    return found


def adjusted(attacks: Mapping[str, Attack], chosen: Mapping[str, Gradient]) -> dict[str, Attack]:
    """Return a battery in which the gradients of some kinds have other settings.

    Args:
        attacks: ``{name: attack}``.
        chosen: ``{kind: gradient}``, such as ``{"HART": HART(0.7)}``.
    """
    return {name: _adjusted(attack, chosen) for name, attack in attacks.items()}


def _trial(attack: Attack, gradient: Any) -> Callable[[Gradient], Attack]:
    return lambda inner: PGD(attack.threat, steps=STEPS, gradient=_exchanged(gradient, inner))


def _adjusted(attack: Attack, chosen: Mapping[str, Gradient]) -> Attack:
    gradient = getattr(attack, "gradient", None)
    inner = chosen.get(type(innermost(gradient)).__name__)
    if inner is None:
        return attack
    other: Attack = replace(attack, gradient=_exchanged(gradient, inner))  # type: ignore[type-var]
    return other


def _exchanged(gradient: Any, inner: Gradient) -> Gradient:
    """Return a gradient with another one innermost."""
    if not hasattr(gradient, "inner"):
        return inner
    outer: Gradient = replace(gradient, inner=_exchanged(gradient.inner, inner))
    return outer
