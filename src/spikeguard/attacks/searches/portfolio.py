"""The searches of a converging search, each a function of what was spent so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, SwapSurrogate
from spikeguard.attacks.gradients.spiking_rules import HART, RGA
from spikeguard.attacks.losses import Loss, cross_entropy, margin
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.threat import Threat
from spikeguard.neurons.surrogate import Triangular

__all__ = ["Entry", "portfolio"]

_SHARPNESS = (0.45, 0.42, 0.40, 0.43, 0.38)  # A of ASSG in turn: each finds other inputs
_SHORT, _LONG = 300, 1000  # gradient steps of a search, early and late
_FEW, _MANY = 1000, 4000  # queries of a climb, early and late


@dataclass(frozen=True)
class Entry:
    """One search of the portfolio.

    Attributes:
        build: ``(pull, spent) -> attack``: the attack for the next use, given how often it was
            used and the gradients per sample that all searches have spent.
        expected: Share of the remaining samples that a first use is expected to fool, per 300
            gradients; from other networks than those reported. It orders searches not used yet.
    """

    build: Callable[[int, float], Attack]
    expected: float


def portfolio(threat: Threat) -> dict[str, Entry]:
    """Return the searches by name, in the order that breaks ties.

    ``climb`` is a ``LocalClimb``; it starts from the points of lowest margin that the gradient
    searches have seen since the last climb. Searches become longer as more is spent.
    """

    def steps(pull: int, spent: float) -> int:
        return int(min(_LONG, max(_SHORT, spent / 10)))

    def first_short(pull: int, spent: float) -> int:
        return steps(pull, spent) if pull else _SHORT // 3

    def sharp(temporal: bool, loss: Loss = cross_entropy) -> Callable[[int, float], Attack]:
        def build(pull: int, spent: float) -> Attack:
            gradient = ASSG(_SHARPNESS[pull % len(_SHARPNESS)], temporal)
            return SAPGD(threat, steps=steps(pull, spent), loss=loss, gradient=gradient)

        return build

    def plain(gradient: Gradient) -> Callable[[int, float], Attack]:
        return lambda pull, spent: SAPGD(threat, steps=first_short(pull, spent), gradient=gradient)

    def targeted(pull: int, spent: float) -> Attack:
        gradient = ASSG(_SHARPNESS[pull % len(_SHARPNESS)], temporal=True)
        return APGD(threat, steps=first_short(pull, spent), targets=9, gradient=gradient)

    def climb(pull: int, spent: float) -> Attack:
        return LocalClimb(threat, int(min(_MANY, max(_FEW, spent / 3))))

    entries = {
        "assg-cut": Entry(sharp(temporal=False), 0.3),
        "climb": Entry(climb, 0.4),
        "assg": Entry(sharp(temporal=True), 0.1),
        "assg-cut/margin": Entry(sharp(temporal=False, loss=margin), 0.02),
        "rga": Entry(plain(RGA()), 0.01),
        "hart": Entry(plain(HART(0.5)), 0.01),
        "own": Entry(plain(BACKPROP), 0.01),
        "width0.5": Entry(plain(SwapSurrogate(Triangular(0.5))), 0.01),
        "width2": Entry(plain(SwapSurrogate(Triangular(2.0))), 0.01),
        "apgd-t/assg": Entry(targeted, 0.01),
    }
    if threat.norm != "l1":
        entries["square"] = Entry(
            lambda pull, spent: Square(threat, queries=int(min(_MANY, max(_FEW, spent / 3)))), 0.01
        )
    return entries
