"""Variants of the reported attack: another gradient, a large eps, a loss on decisions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import EoT, Gradient
from spikeguard.attacks.gradients.spiking_rules import BPTR, HART, PDSG, RGA
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.auditing.context import EOT, Context
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["RULES", "decision", "with_gradient", "far"]


RULES: dict[str, Gradient] = {
    "BPTR": BPTR(),
    "RGA": RGA(),
    "HART": HART(),
    "ASSG": ASSG(),
    "PDSG": PDSG(),
}


def decision(logits: Tensor, y: Tensor) -> Tensor:
    """Return 1 for each misclassified sample, 0 for each correct one [B]."""
    return (logits.argmax(1) != y).to(torch.float32)


def with_gradient(context: Context, gradient: Gradient) -> Attack:
    """Return the reported attack with another gradient; PGD if the attack has no gradient."""
    gradient = EoT(EOT, gradient) if context.stochastic else gradient
    attack = context.reference()
    if not hasattr(attack, "gradient"):
        return context.pgd(gradient=gradient)
    other: Attack = replace(attack, gradient=gradient)  # type: ignore[type-var]
    return other


_FAR_STEPS = 10  # long steps: 2.5 eps / 10 each
_L1_STEPS = 50


def far(context: Context, eps: float, surrogate: Surrogate | None = None) -> float:
    """Return the accuracy after a few long steps from the clean images in a large ball."""
    steps = min(_FAR_STEPS, context.steps)
    attack = context.pgd(eps=eps, steps=steps, surrogate=surrogate, random_start=False)
    if context.threat.norm == "l1":  # a step along the sign moves every pixel by 1/d of the radius
        threat = replace(context.threat, eps=eps)  # type: ignore[type-var]
        attack = APGD(
            threat, steps=_L1_STEPS, loss=cross_entropy, gradient=context.gradient(surrogate)
        )
    return context.attacked(attack).accuracy
