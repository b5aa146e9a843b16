"""The registry ``SUITES``: suites that are lists of attack lines, and suites that need code.

A list of attack lines is an entry of ``suites.yaml``. Code is for suites whose attacks depend on
the norm, the widths or the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spikeguard.attacks.attack_lines import parse_line
from spikeguard.attacks.base import Attack
from spikeguard.attacks.event_suites import events, events_papers
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import Backprop, EoT, Gradient, SwapSurrogate
from spikeguard.attacks.gradients.mean_field import MeanField
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout
from spikeguard.attacks.gradients.nes import NES
from spikeguard.attacks.gradients.spiking_rules import BPTR, HART, PDSG, RGA
from spikeguard.attacks.listed_suites import LISTED
from spikeguard.attacks.losses import cross_entropy, dlr, margin
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.converging import Converging
from spikeguard.attacks.searches.fab import FAB
from spikeguard.attacks.searches.mifgsm import MIFGSM
from spikeguard.attacks.searches.mtpgd import MTPGD
from spikeguard.attacks.searches.pgd import FGSM, PGD, RFGSM
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.threat import Threat
from spikeguard.neurons.surrogate import Surrogate, Triangular

__all__ = ["CASCADES", "SHORT_SEARCH", "SUITES", "SuiteSettings"]

CASCADES = frozenset(
    {"standard", "snn", "snn-short", "snn-cascade", "events"}
)  # suites for the worst case

_TARGETS = 9
SHORT_SEARCH = 600  # gradients per sample of ``snn-short``


@dataclass(frozen=True)
class SuiteSettings:
    """Settings from which a suite is built; the fields are the arguments of ``suite``."""

    threat: Threat
    eot: int
    widths: Sequence[float]
    steps: int

    def gradient(self, surrogate: Surrogate | None = None) -> Gradient:
        """Return backpropagation, with another surrogate if one is given."""
        return self.averaged(Backprop() if surrogate is None else SwapSurrogate(surrogate))

    def averaged(self, inner: Gradient) -> Gradient:
        """Return a gradient averaged over ``eot`` draws."""
        return inner if self.eot == 1 else EoT(self.eot, inner)

    def mean_field(
        self, name: str, search: Callable[..., Attack], **options: Any
    ) -> dict[str, Attack]:
        """Return a search on the mean field, for stochastic models: none if ``eot`` is 1."""
        if self.eot == 1:
            return {}
        return {f"{name}/mean-field": search(self.threat, gradient=MeanField(), **options)}

    def pgd(self, steps: int, width: float | None = None) -> PGD:
        """Return PGD, with a triangular surrogate if a half-width is given."""
        surrogate = None if width is None else Triangular(width)
        return PGD(self.threat, steps=steps, gradient=self.gradient(surrogate))

    def sweep(self, steps: int) -> dict[str, Attack]:
        """PGD with the model's own surrogate, and with a triangle of each half-width."""
        return {f"pgd{steps}": self.pgd(steps), **self.swept(steps)}

    def swept(self, steps: int) -> dict[str, Attack]:
        """PGD with a triangle of each half-width."""
        return {f"pgd{steps}/width{w:g}": self.pgd(steps, w) for w in self.widths}


def _compare(plan: SuiteSettings) -> dict[str, Attack]:
    """The attacks of "papers", and PGD-20 with every half-width: published beside worst case."""
    return {**LISTED["papers"](plan), **plan.swept(20)}


def _quick(plan: SuiteSettings) -> dict[str, Attack]:
    """PGD-10 on the mean field (stochastic models); FGSM, PGD-10 with own and other surrogates."""
    first = plan.mean_field("pgd10", PGD, steps=10)
    return {**first, **_sweep_of_ten(plan)}


def _sweep_of_ten(plan: SuiteSettings) -> dict[str, Attack]:
    """FGSM and PGD-10, with the model's own surrogate and with every half-width."""
    return {"fgsm": FGSM(plan.threat, gradient=plan.gradient()), **plan.sweep(10)}


def _surrogates(plan: SuiteSettings) -> dict[str, Attack]:
    """PGD with the model's own surrogate and every half-width: the effect of the surrogate."""
    return plan.sweep(plan.steps)


def _demo(plan: SuiteSettings) -> dict[str, Attack]:
    """Noise, FGSM, PGD-10 and 40 as in ``papers``, PGD-20 in all half-widths, SA-PGD + ASSG."""
    step = parse_line(LISTED["papers"].attacks["pgd40"]).entry(plan.threat.eps).get("step_size")
    own = {f"pgd{steps}": replace(plan.pgd(steps), step_size=step) for steps in (10, plan.steps)}
    swept = plan.swept(max(1, plan.steps // 2))
    first = FGSM(plan.threat, gradient=plan.gradient())
    last = SAPGD(plan.threat, steps=2 * plan.steps, gradient=plan.averaged(ASSG()))
    smooth = plan.mean_field("apgd-ce", APGD, steps=2 * plan.steps, loss=cross_entropy)
    return {**smooth, **LISTED["baseline"](plan), "fgsm": first, **own, **swept, "sapgd/assg": last}


def _standard(plan: SuiteSettings) -> dict[str, Attack]:
    """APGD on the mean field (stochastic models), then the attacks of AutoAttack; a cascade."""
    return {**plan.mean_field("apgd-ce", APGD, loss=cross_entropy), **_autoattack(plan)}


def _autoattack(plan: SuiteSettings) -> dict[str, Attack]:
    """The attacks and the budget of AutoAttack, with the model's own surrogate."""
    threat, gradient = plan.threat, plan.gradient()
    attacks: dict[str, Attack] = {
        "apgd-ce": APGD(threat, loss=cross_entropy, gradient=gradient),
        "apgd-t": APGD(threat, targets=_TARGETS, gradient=gradient),
        "fab-t": FAB(threat, targets=_TARGETS, gradient=gradient),
    }
    return attacks if threat.norm == "l1" else attacks | {"square": Square(threat)}


def _snn(plan: SuiteSettings) -> dict[str, Attack]:
    """Searches in turn until no more samples fall: the strongest number of this package."""
    return {"snn": Converging(plan.threat)}


def _snn_short(plan: SuiteSettings) -> dict[str, Attack]:
    """The search of ``snn`` with 600 gradients a sample: a first look at the worst case."""
    return {"snn": Converging(plan.threat, SHORT_SEARCH)}


def _snn_cascade(plan: SuiteSettings) -> dict[str, Attack]:
    """Noise, the gradients for spiking networks, and "standard", in order of cost; a cascade.

    This was the suite "snn" before the converging search.
    """
    threat = plan.threat
    swept = {f"width{w:g}": SwapSurrogate(Triangular(w)) for w in plan.widths}
    rules: dict[str, Gradient] = {**swept, "rga": RGA(), "hart": HART(0.5), "assg": ASSG()}
    cheap: dict[str, Attack] = {**LISTED["baseline"](plan), **_sweep_of_ten(plan)}
    found = {
        f"apgd-ce/{name}": APGD(threat, loss=cross_entropy, gradient=plan.averaged(inner))
        for name, inner in rules.items()
    }
    counted = plan.averaged(MembraneReadout())
    found["apgd-margin/membrane"] = APGD(threat, loss=margin, gradient=counted)
    sharp = plan.averaged(ASSG())
    targeted = {
        f"apgd-t/{name}": APGD(threat, targets=_TARGETS, gradient=plan.averaged(rules[name]))
        for name in ("width0.5", "assg")
        if name in rules
    }
    return {
        **cheap,
        **found,
        "sapgd/assg": SAPGD(threat, gradient=sharp),
        **targeted,
        **_autoattack(plan),
    }


def _every(plan: SuiteSettings) -> dict[str, Attack]:
    """One search of every kind, and PGD with every loss and every gradient; a comparison."""
    threat, own, steps = plan.threat, plan.gradient(), max(2, plan.steps // 2)
    searches: dict[str, Attack] = {
        **LISTED["baseline"](plan),
        "fgsm": FGSM(threat, gradient=own),
        "rfgsm": RFGSM(threat, gradient=own),
        f"pgd{steps}": plan.pgd(steps),
        f"mifgsm{steps}": MIFGSM(threat, steps=steps, gradient=own),
        f"apgd{steps}": APGD(threat, steps=steps, gradient=own),
        f"sapgd{steps}": SAPGD(threat, steps=steps, gradient=own),
        f"mtpgd{steps}": MTPGD(threat, steps=steps, targets=_TARGETS, gradient=own),
        f"fab{steps}": FAB(threat, steps=steps, targets=_TARGETS, gradient=own),
    }
    if threat.norm != "l1":
        searches["square"] = Square(threat, queries=25 * steps, rescale=True)
    for name, loss in (("margin", margin), ("dlr", dlr)):
        searches[f"pgd{steps}/{name}"] = PGD(threat, steps=steps, loss=loss, gradient=own)
    swapped = {f"width{w:g}": SwapSurrogate(Triangular(w)) for w in plan.widths}
    gradients: dict[str, Gradient] = {
        **swapped,
        "bptr": BPTR(),
        "rga": RGA(),
        "hart": HART(),
        "assg": ASSG(),
        "pdsg": PDSG(),
        "ann-twin": ANNTwin(),
        "nes": NES(),
        "membrane": MembraneReadout(),
    }
    searches = plan.mean_field(f"pgd{steps}", PGD, steps=steps) | searches
    for name, inner in gradients.items():
        searches[f"pgd{steps}/{name}"] = PGD(threat, steps=steps, gradient=plan.averaged(inner))
    return searches


SUITES: dict[str, Callable[[SuiteSettings], dict[str, Attack]]] = {
    **LISTED,
    "compare": _compare,
    "quick": _quick,
    "surrogates": _surrogates,
    "demo": _demo,
    "standard": _standard,
    "snn": _snn,
    "snn-short": _snn_short,
    "snn-cascade": _snn_cascade,
    "every": _every,
    "events-papers": events_papers,
    "events": events,
}
