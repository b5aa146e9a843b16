"""The searches of a converging search, each a function of what was spent so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, SwapSurrogate
from spikeguard.attacks.losses import Loss, cross_entropy, margin
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.threat import Threat
from spikeguard.neurons.surrogate import Triangular

__all__ = ["Entry", "needed", "portfolio"]

_SHARPNESS = (0.45, 0.42, 0.40, 0.43, 0.38)  # A of ASSG in turn: each finds other inputs
_FIRST, _SHORT, _LONG = 100, 300, 1000  # gradient steps of a search: at first, early and late
_QUERIES = 500, 2000, 4000  # of a climb: at first, early and late


@dataclass(frozen=True)
class Entry:
    """One search of the portfolio.

    Attributes:
        build: ``(pull, spent) -> attack``: the attack for the next use, given how often it was
            used and the gradients per sample that all searches have spent.
        expected: Share of the remaining samples that a first use is expected to fool, per 300
            gradients; from other images than those reported. It orders searches not used yet.
        unless: An entry beside which this one is not needed; the search is used only on a model
            to which that entry does not apply.
    """

    build: Callable[[int, float], Attack]
    expected: float
    unless: str = ""


def portfolio(threat: Threat) -> dict[str, Entry]:
    """Return the searches by name, in the order that breaks ties.

    ``climb`` is a ``LocalClimb``; it starts from the points of lowest margin that the gradient
    searches have seen since the last climb. Searches become longer as more is spent.
    docs/searches.md has the measurements behind the choice.
    """

    def steps(spent: float) -> int:
        return int(min(_LONG, max(_FIRST, min(_SHORT, spent / 2), spent / 10)))

    def queries(spent: float) -> int:
        first, short, long = _QUERIES
        return int(min(long, max(first, min(short, 4 * spent), spent / 3)))

    def sharp(loss: Loss, **path: bool) -> Callable[[int, float], Attack]:
        def build(pull: int, spent: float) -> Attack:
            gradient = ASSG(_SHARPNESS[pull % len(_SHARPNESS)], **path)
            return SAPGD(threat, steps=steps(spent), loss=loss, gradient=gradient)

        return build

    def auto(pull: int, spent: float) -> Attack:
        gradient = ASSG(_SHARPNESS[pull % len(_SHARPNESS)], temporal=False)
        return APGD(threat, steps=steps(spent), loss=margin, gradient=gradient)

    def targeted(pull: int, spent: float) -> Attack:
        return APGD(threat, steps=steps(spent) if pull else _FIRST, targets=9)

    def plain(gradient: Gradient, expected: float) -> Entry:
        def build(pull: int, spent: float) -> Attack:
            return SAPGD(threat, steps=steps(spent) if pull else _FIRST, gradient=gradient)

        return Entry(build, expected, unless="assg-cut")

    entries = {
        "assg-cut": Entry(sharp(cross_entropy, temporal=False), 0.3),
        "climb": Entry(lambda pull, spent: LocalClimb(threat, queries(spent)), 0.4),
        "assg-leak": Entry(sharp(cross_entropy, reset=False), 0.05),
        "assg-cut/margin": Entry(sharp(margin, temporal=False), 0.1),
        "assg": Entry(sharp(cross_entropy), 0.05, unless="assg-leak"),
        "apgd/assg-cut/margin": Entry(auto, 0.02),
        "own": plain(BACKPROP, 0.2),
        "width0.5": plain(SwapSurrogate(Triangular(0.5)), 0.05),
        "width2": plain(SwapSurrogate(Triangular(2.0)), 0.05),
        "apgd-t": Entry(targeted, 0.05, unless="assg-cut"),
    }
    if threat.norm != "l1":
        entries["square"] = Entry(
            lambda pull, spent: Square(threat, queries(spent)), 0.05, unless="assg-cut"
        )
    return entries


def needed(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Drop the entries that are not needed beside the others."""
    return {name: entry for name, entry in entries.items() if entry.unless not in entries}
