"""The attack protocol, attack costs, errors, and settings as JSON."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness

__all__ = ["FORWARD", "Attack", "AttackError", "NoGradientError", "cost", "describe"]


FORWARD = 1 / 3  # cost of a forward pass, where a gradient (forward and backward) costs 1


class AttackError(RuntimeError):
    """The model cannot be attacked: a value is NaN or infinite, or there is no gradient."""


class NoGradientError(AttackError):
    """No gradient reaches the input, because the model detaches it."""


class Attack(Protocol):
    """A search for adversarial inputs: ``attack(model, x, y, generator=g) -> x_adv``.

    An attack may also have a property ``cost``, see :func:`cost`, and an attribute ``exempt_from``
    with the names of the contract tests that it cannot pass: "linear_optimum" (on a linear model it
    need not reach the maximum, because it is random or stops once the model is wrong), "moves_far"
    (it may stay close to the input), "moves_in_l1" (under L1 it may return the input), "l2" or "l1"
    (it rejects threat sets of this norm).
    """

    @property
    def threat(self) -> Threat:
        """The set the adversary may use."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; the model is left unchanged."""


def cost(attack: Attack) -> float:
    """Return the cost of an attack on a sample that it never fools, in gradient evaluations.

    One gradient evaluation is a forward and a backward pass; a forward pass alone counts a third.
    The value is the attack's property ``cost``, or infinity for an attack without that property.
    """
    return float(getattr(attack, "cost", math.inf))


def describe(part: Any) -> Any:
    """Return an attack's settings as JSON-compatible data: its kind and every field.

    Fields named in the class attribute ``added_later`` are left out at their default, so that
    results of an earlier version can be read.

    Example:
        >>> describe(Linf(0.1))
        {'kind': 'Linf', 'eps': 0.1}
    """
    if is_dataclass(part) and not isinstance(part, type):
        later = getattr(part, "added_later", ())
        inside = {
            f.name: describe(getattr(part, f.name))
            for f in fields(part)
            if f.name not in later or getattr(part, f.name) != f.default
        }
        return {"kind": type(part).__name__, **inside}
    if isinstance(part, list | tuple):
        return [describe(item) for item in part]
    if isinstance(part, float) and math.isinf(part):
        return str(part)  # JSON has no infinity
    if isinstance(part, np.generic):
        return describe(part.item())
    if isinstance(part, partial):
        inside = {"of": describe(part.func), "arguments": describe(part.args)}
        return {"kind": "partial", **inside, **{k: describe(v) for k, v in part.keywords.items()}}
    if part is None or isinstance(part, bool | int | float | str):
        return part
    return getattr(part, "__name__", type(part).__name__)
