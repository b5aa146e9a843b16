"""The searches of a converging search on a noisy network: the mean field first, then EoT."""

from __future__ import annotations

from collections.abc import Callable

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import BACKPROP, EoT, Gradient, SwapSurrogate
from spikeguard.attacks.gradients.mean_field import MeanField, draws_for
from spikeguard.attacks.losses import Loss, cross_entropy, margin
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.portfolio import Entry
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.threat import Threat
from spikeguard.neurons.surrogate import Triangular

__all__ = ["noisy_portfolio"]

_STEPS = 100  # gradient steps of a search with EoT
_SHORT, _LONG = 100, 1000  # gradient steps of a search on the mean field, early and late
_QUERIES = 1000


def noisy_portfolio(threat: Threat) -> dict[str, Entry]:
    """Return the searches by name, in the order that breaks ties.

    Searches on the mean field draw nothing and become longer as more is spent. Searches with EoT
    take as many draws as all searches before them could pay for one remaining sample, 4 to 32.
    There is no ``LocalClimb``: it compares points by single passes.
    """

    def smooth(loss: Loss) -> Callable[[int, float], Attack]:
        def build(pull: int, spent: float) -> Attack:
            steps = int(min(_LONG, max(_SHORT, spent / 10)))
            return APGD(threat, steps=steps, loss=loss, gradient=MeanField())

        return build

    def drawn(inner: Gradient) -> Callable[[int, float], Attack]:
        def build(pull: int, spent: float) -> Attack:
            gradient = EoT(draws_for(_STEPS, spent), inner)
            return APGD(threat, steps=_STEPS, loss=cross_entropy, gradient=gradient)

        return build

    def sharp(pull: int, spent: float) -> Attack:
        gradient = MeanField(ASSG(temporal=bool(pull % 2)))
        return SAPGD(threat, steps=_SHORT, gradient=gradient)

    entries = {
        "mean-field": Entry(smooth(cross_entropy), 0.5),
        "mean-field/margin": Entry(smooth(margin), 0.3),
        "eot": Entry(drawn(BACKPROP), 0.3),
        "mean-field/assg": Entry(sharp, 0.1),
        "eot/width0.5": Entry(drawn(SwapSurrogate(Triangular(0.5))), 0.05),
        "eot/width2": Entry(drawn(SwapSurrogate(Triangular(2.0))), 0.05),
        "eot/assg": Entry(drawn(ASSG()), 0.05),
    }
    if threat.norm != "l1":
        entries["square"] = Entry(lambda pull, spent: Square(threat, queries=_QUERIES), 0.01)
    return entries
