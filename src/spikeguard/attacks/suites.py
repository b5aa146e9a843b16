"""Suites: named batteries of attacks, each a dictionary ``{name: attack}``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from spikeguard.attacks.apgd import APGD
from spikeguard.attacks.assg import ASSG
from spikeguard.attacks.base import Attack, cross_entropy
from spikeguard.attacks.fab import FAB
from spikeguard.attacks.gradient import Backprop, EoT, Gradient, SwapSurrogate
from spikeguard.attacks.losses import dlr
from spikeguard.attacks.noise import UniformNoise
from spikeguard.attacks.pgd import FGSM, PGD, RFGSM
from spikeguard.attacks.rules import BPTR, HART, PDSG, RGA
from spikeguard.attacks.sapgd import SAPGD
from spikeguard.attacks.square import Square
from spikeguard.attacks.threat import THREATS, Threat
from spikeguard.attacks.twin import ANNTwin
from spikeguard.neurons import Neuron, Surrogate, Triangular, spiking_layers

__all__ = ["CASCADES", "SUITES", "member", "suitable", "suite"]

CASCADES = frozenset({"standard", "snn"})  # made to find the worst case: run as a cascade

_TARGETS = 9
_SWAPS = (SwapSurrogate, ASSG)  # need a surrogate that can be exchanged
_RULES = (BPTR, RGA, HART, PDSG, ANNTwin)  # need neurons of the package
_PAPER_STEP = 0.01 / (8 / 255)  # the papers' alpha of 0.01 at eps 8/255, as a share of eps

_STABLE_STEPS = {7: 2.55, 10: 2.0, 20: 1.0, 40: 0.5}  # PGD steps: their size in 1/255 at eps 8/255


@dataclass(frozen=True)
class _Plan:
    """What a suite is built from."""

    threat: Threat
    eot: int
    widths: Sequence[float]
    steps: int

    def gradient(self, surrogate: Surrogate | None = None) -> Gradient:
        return self.averaged(Backprop() if surrogate is None else SwapSurrogate(surrogate))

    def averaged(self, inner: Gradient) -> Gradient:
        return inner if self.eot == 1 else EoT(self.eot, inner)

    def pgd(self, steps: int, width: float | None = None) -> PGD:
        surrogate = None if width is None else Triangular(width)
        return PGD(self.threat, steps=steps, gradient=self.gradient(surrogate))

    def sweep(self, steps: int) -> dict[str, Attack]:
        """PGD with the surrogate as trained, and with a triangle of each half-width."""
        return {f"pgd{steps}": self.pgd(steps), **self.swept(steps)}

    def swept(self, steps: int) -> dict[str, Attack]:
        """PGD with a triangle of each half-width."""
        return {f"pgd{steps}/width{w:g}": self.pgd(steps, w) for w in self.widths}


def suite(
    name: str,
    *,
    eps: float,
    norm: str = "linf",
    eot: int = 1,
    widths: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    steps: int = 40,
) -> dict[str, Attack]:
    """Return a battery of attacks.

    Args:
        name: One of ``SUITES``.
        eps: Radius of the threat set.
        norm: "linf", "l2" or "l1".
        eot: Gradients averaged in every step, >= 1; more than 1 for stochastic models.
        widths: Half-widths of the attacker's triangular surrogate, where the suite sweeps them.
        steps: Steps of the sweep in "surrogates" and "demo".

    Raises:
        ValueError: If the name or the norm is unknown, or a number is out of range.
    """
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"suite: unknown suite {name!r}.{hint} Known: {', '.join(SUITES)}.")
    if norm not in THREATS:
        raise ValueError(f"suite: norm is one of {', '.join(THREATS)}; got {norm!r}.")
    if eot < 1:
        raise ValueError(f"suite: eot counts gradients, >= 1, got {eot}.")
    if len(set(widths)) < len(widths):
        raise ValueError(f"suite: widths must differ, got {list(widths)}.")
    return SUITES[name](_Plan(THREATS[norm](eps), eot, tuple(widths), steps))


def member(name: str, *, eps: float, norm: str = "linf", eot: int = 1) -> Attack:
    """Return one attack by the name that a suite gives it, such as "pgd40" or "sapgd/assg".

    Where both suites use a name, it is the attack of "papers".

    Raises:
        ValueError: As :func:`suite`, or if no suite has an attack of this name.
    """
    known = suite("snn", eps=eps, norm=norm, eot=eot) | suite("papers", eps=eps, norm=norm, eot=eot)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"attack: unknown attack {name!r}.{hint} Known: {', '.join(known)}.")
    return known[name]


def suitable(
    attacks: Mapping[str, Attack], model: nn.Module
) -> tuple[dict[str, Attack], tuple[str, ...]]:
    """Leave out the attacks whose gradient has nothing to take hold of in a model.

    Another surrogate, and ASSG, need spiking layers, of the package or of a framework that
    ``foreign`` knows; the other gradients made for spiking networks need those of the package.

    Returns:
        The attacks that can be made, and the names of the others.
    """
    swaps = bool(spiking_layers(model))
    rules = any(isinstance(module, Neuron) for module in model.modules())
    kept = {
        name: attack
        for name, attack in attacks.items()
        if (swaps or not _uses(attack, *_SWAPS)) and (rules or not _uses(attack, *_RULES))
    }
    return kept, tuple(name for name in attacks if name not in kept)


def _uses(attack: Attack, *kinds: type) -> bool:
    """Whether an attack's gradient, or what it averages, is of a kind."""
    gradient = getattr(attack, "gradient", None)
    while isinstance(gradient, EoT):
        gradient = gradient.inner
    return isinstance(gradient, kinds)


def _papers(plan: _Plan) -> dict[str, Attack]:
    """FGSM, R+FGSM and PGD-7/10/20/40 at the papers' fixed step, with the model's own surrogate."""
    threat, gradient = plan.threat, plan.gradient()
    step = _PAPER_STEP * threat.eps or None
    attacks: dict[str, Attack] = {
        "fgsm": FGSM(threat, gradient=gradient),
        "rfgsm": RFGSM(threat, gradient=gradient),
    }
    for steps in (7, 10, 20, 40):
        attacks[f"pgd{steps}"] = PGD(threat, steps=steps, step_size=step, gradient=gradient)
    return attacks


def _stable_snn(plan: _Plan) -> dict[str, Attack]:
    """FGSM, PGD of 7 to 40 steps that shrink with their number, APGD-10 with CE and with DLR."""
    threat, gradient = plan.threat, plan.gradient()
    attacks: dict[str, Attack] = {"fgsm": FGSM(threat, gradient=gradient)}
    for steps, size in _STABLE_STEPS.items():
        step = size / 8 * threat.eps or None
        attacks[f"pgd{steps}"] = PGD(threat, steps=steps, step_size=step, gradient=gradient)
    for name, loss in (("ce", cross_entropy), ("dlr", dlr)):
        attacks[f"apgd-{name}10"] = APGD(threat, steps=10, loss=loss, gradient=gradient)
    return attacks


def _compare(plan: _Plan) -> dict[str, Attack]:
    """What the papers ran, and PGD-20 with every half-width: printed number beside worst case."""
    return {**_papers(plan), **plan.swept(20)}


def _quick(plan: _Plan) -> dict[str, Attack]:
    """FGSM and PGD-10, with the model's own surrogate and with every half-width."""
    return {"fgsm": FGSM(plan.threat, gradient=plan.gradient()), **plan.sweep(10)}


def _surrogates(plan: _Plan) -> dict[str, Attack]:
    """PGD with the model's own surrogate and every half-width: does it decide the result?"""
    return plan.sweep(plan.steps)


def _baseline(plan: _Plan) -> dict[str, Attack]:
    """Uniform noise: the attack that every other must beat."""
    return {"noise": UniformNoise(plan.threat)}


def _demo(plan: _Plan) -> dict[str, Attack]:
    """Noise, FGSM, PGD-10, PGD-40, PGD-20 with every half-width, and SA-PGD with ASSG."""
    own = {f"pgd{steps}": plan.pgd(steps) for steps in (10, plan.steps)}
    swept = plan.swept(max(1, plan.steps // 2))
    first = FGSM(plan.threat, gradient=plan.gradient())
    last = SAPGD(plan.threat, steps=2 * plan.steps, gradient=plan.averaged(ASSG()))
    return {**_baseline(plan), "fgsm": first, **own, **swept, "sapgd/assg": last}


def _standard(plan: _Plan) -> dict[str, Attack]:
    """The attacks and the budget of AutoAttack, with the model's own surrogate: a cascade."""
    threat, gradient = plan.threat, plan.gradient()
    attacks: dict[str, Attack] = {
        "apgd-ce": APGD(threat, loss=cross_entropy, gradient=gradient),
        "apgd-t": APGD(threat, targets=_TARGETS, gradient=gradient),
        "fab-t": FAB(threat, targets=_TARGETS, gradient=gradient),
    }
    return attacks if threat.norm == "l1" else attacks | {"square": Square(threat)}


def _snn(plan: _Plan) -> dict[str, Attack]:
    """Standard, and the gradients made for spiking networks, from cheap to dear: a cascade."""
    threat = plan.threat
    swept = {f"width{w:g}": SwapSurrogate(Triangular(w)) for w in plan.widths}
    rules: dict[str, Gradient] = {**swept, "rga": RGA(), "hart": HART(0.5), "assg": ASSG()}
    cheap: dict[str, Attack] = {**_baseline(plan), **_quick(plan)}
    found = {
        f"apgd-ce/{name}": APGD(threat, loss=cross_entropy, gradient=plan.averaged(inner))
        for name, inner in rules.items()
    }
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
        **_standard(plan),
    }


SUITES: dict[str, Callable[[_Plan], dict[str, Attack]]] = {
    "papers": _papers,
    "stable-snn": _stable_snn,
    "compare": _compare,
    "quick": _quick,
    "surrogates": _surrogates,
    "baseline": _baseline,
    "demo": _demo,
    "standard": _standard,
    "snn": _snn,
}
