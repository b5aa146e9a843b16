"""Attacks: attack = search x loss x gradient x threat, as fields of small frozen dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from spikeguard.attacks.searches.active_set import (State, Step, Stepwise, Watch)
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.base import (FORWARD, LOSSES, Attack, AttackError, Loss, NoGradientError, classify, cost, crafting, cross_entropy, evaluating, frozen, margin, require_finite_weights)
from spikeguard.attacks.searches.fab import FAB
from spikeguard.attacks.gradients.base import (Backprop, EoT, Gradient, SwapSurrogate, gradient_cost)
from spikeguard.attacks.gradients.cuda_graph import Graphed
from spikeguard.attacks.losses import (dlr, targeted_dlr, targeted_margin)
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout
from spikeguard.attacks.searches.mifgsm import MIFGSM
from spikeguard.attacks.searches.mtpgd import MTPGD
from spikeguard.attacks.gradients.nes import NES
from spikeguard.attacks.searches.noise import UniformNoise
from spikeguard.attacks.searches.pgd import (FGSM, PGD, RFGSM)
from spikeguard.attacks.gradients.spiking_rules import (BPTR, HART, PDSG, RGA)
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.suites import (CASCADES, SUITES, suitable, suite)
from spikeguard.attacks.threat import (L1, L2, THREATS, Linf, Threat, ThreatViolation)
from spikeguard.attacks.tunable import (CANDIDATES, adjusted, tunable)
from spikeguard.attacks.tuning import (Tuned, tune)
from spikeguard.attacks.gradients.ann_twin import ANNTwin

__all__ = [
    "APGD",
    "ASSG",
    "ATTACKS",
    "BPTR",
    "CANDIDATES",
    "CASCADES",
    "FAB",
    "FGSM",
    "FORWARD",
    "HART",
    "L1",
    "L2",
    "LOSSES",
    "MIFGSM",
    "MTPGD",
    "NES",
    "PDSG",
    "PGD",
    "RFGSM",
    "RGA",
    "SAPGD",
    "SUITES",
    "THREATS",
    "ANNTwin",
    "Attack",
    "AttackError",
    "Backprop",
    "EoT",
    "Gradient",
    "Graphed",
    "Linf",
    "Loss",
    "MembraneReadout",
    "NoGradientError",
    "Square",
    "State",
    "Step",
    "Stepwise",
    "SwapSurrogate",
    "Threat",
    "ThreatViolation",
    "Tuned",
    "UniformNoise",
    "Watch",
    "adjusted",
    "classify",
    "cost",
    "crafting",
    "cross_entropy",
    "describe",
    "dlr",
    "evaluating",
    "frozen",
    "gradient_cost",
    "margin",
    "require_finite_weights",
    "suitable",
    "suite",
    "targeted_dlr",
    "targeted_margin",
    "tunable",
    "tune",
]

ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": FGSM,
    "rfgsm": RFGSM,
    "pgd": PGD,
    "apgd": APGD,
    "mifgsm": MIFGSM,
    "sapgd": SAPGD,
    "mtpgd": MTPGD,
    "fab": FAB,
    "square": Square,
    "noise": UniformNoise,
}
LOSSES["dlr"] = dlr


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
