"""Attacks: attack = search x loss x gradient x threat, as fields of small frozen dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from spikeguard.attacks.active import State, Step, Stepwise, Watch
from spikeguard.attacks.base import (
    FORWARD,
    LOSSES,
    Attack,
    AttackError,
    Loss,
    NoGradientError,
    classify,
    cost,
    crafting,
    cross_entropy,
    evaluating,
    frozen,
    margin,
    require_finite_weights,
)
from spikeguard.attacks.gradient import Backprop, EoT, Gradient, SwapSurrogate
from spikeguard.attacks.graphs import Graphed
from spikeguard.attacks.noise import UniformNoise
from spikeguard.attacks.pgd import FGSM, PGD, RFGSM
from spikeguard.attacks.suites import SUITES, suite
from spikeguard.attacks.threat import L2, THREATS, Linf, Threat, ThreatViolation

__all__ = [
    "ATTACKS",
    "FGSM",
    "FORWARD",
    "L2",
    "LOSSES",
    "PGD",
    "RFGSM",
    "SUITES",
    "THREATS",
    "Attack",
    "AttackError",
    "Backprop",
    "EoT",
    "Gradient",
    "Graphed",
    "Linf",
    "Loss",
    "NoGradientError",
    "State",
    "Step",
    "Stepwise",
    "SwapSurrogate",
    "Threat",
    "ThreatViolation",
    "UniformNoise",
    "Watch",
    "classify",
    "cost",
    "crafting",
    "cross_entropy",
    "describe",
    "evaluating",
    "frozen",
    "margin",
    "require_finite_weights",
    "suite",
]

ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": FGSM,
    "rfgsm": RFGSM,
    "pgd": PGD,
    "noise": UniformNoise,
}


def describe(part: Any) -> Any:
    """Return an attack's settings as plain data that JSON can hold: its kind and every field.

    Example:
        >>> describe(Linf(0.1))
        {'kind': 'Linf', 'eps': 0.1}
    """
    if is_dataclass(part) and not isinstance(part, type):
        inside = {f.name: describe(getattr(part, f.name)) for f in fields(part)}
        return {"kind": type(part).__name__, **inside}
    if isinstance(part, list | tuple):
        return [describe(item) for item in part]
    if part is None or isinstance(part, bool | int | float | str):
        return part
    return getattr(part, "__name__", type(part).__name__)
