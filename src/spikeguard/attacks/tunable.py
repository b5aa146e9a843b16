"""Settings of a suite's gradients that can be chosen: what is tried, how, and the suite with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.base import (Attack, cost)
from spikeguard.attacks.gradients.base import (Gradient, innermost)
from spikeguard.attacks.gradients.spiking_rules import HART

__all__ = ["CANDIDATES", "adjusted", "tunable"]

_GAMMAS = (0.5, 0.1, 0.2, 0.35, 0.7, 1.0, 1.4, 2.0, 2.45)  # first what the suites have fixed:
_BOUNDS = (0.425, 0.35, 0.37, 0.39, 0.41, 0.44, 0.46, 0.48, 0.49)  # it stays among equals

CANDIDATES: dict[str, dict[str, Gradient]] = {
    "HART": {f"gamma {gamma:g}": HART(gamma) for gamma in _GAMMAS},
    "ASSG": {f"A {bound:g}": ASSG(bound) for bound in _BOUNDS},
}


def tunable(attacks: Mapping[str, Attack]) -> dict[str, Callable[[Gradient], Attack]]:
    """Return for each kind of gradient in a battery that has a setting what tries a candidate.

    A trial is the very attack that will use the setting, the cheapest where several do: which
    setting is best depends on the search and on its length. The candidates of a kind are
    ``CANDIDATES[kind]``, over the range that the sources search.

    Source: Hao et al., ICLR 2024 (gamma 0.10 to 2.45); arXiv:2512.22522 (A 0.35 to 0.49).
    """
    found: dict[str, Callable[[Gradient], Attack]] = {}
    for attack in sorted(attacks.values(), key=cost):
        kind = type(innermost(getattr(attack, "gradient", None))).__name__
        if kind in CANDIDATES:
            found.setdefault(kind, partial(_with, attack))
    return found


def adjusted(attacks: Mapping[str, Attack], chosen: Mapping[str, Gradient]) -> dict[str, Attack]:
    """Return a battery in which the gradients of some kinds have other settings.

    Args:
        attacks: ``{name: attack}``.
        chosen: ``{kind: gradient}``, such as ``{"HART": HART(0.7)}``.
    """
    return {name: _adjusted(attack, chosen) for name, attack in attacks.items()}


def _adjusted(attack: Attack, chosen: Mapping[str, Gradient]) -> Attack:
    inner = chosen.get(type(innermost(getattr(attack, "gradient", None))).__name__)
    return attack if inner is None else _with(attack, inner)


def _with(attack: Any, inner: Gradient) -> Attack:
    """Return an attack whose innermost gradient is another one."""
    other: Attack = replace(attack, gradient=_exchanged(attack.gradient, inner))
    return other


def _exchanged(gradient: Any, inner: Gradient) -> Gradient:
    """Return a gradient with another one innermost."""
    if not hasattr(gradient, "inner"):
        return inner
    outer: Gradient = replace(gradient, inner=_exchanged(gradient.inner, inner))
    return outer
