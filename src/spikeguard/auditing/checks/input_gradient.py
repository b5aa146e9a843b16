"""Is there an input gradient for the attack to follow? Check G15."""

from __future__ import annotations

from torch import Tensor

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.gradients.zero_gradients import is_zero
from spikeguard.attacks.losses import margin
from spikeguard.auditing.check import CheckOutcome, judged
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.measurements.input_gradients import (
    REPEATS,
    dead_surrogates,
    largest_gradients,
)
from spikeguard.auditing.tolerances import LUCK, percent
from spikeguard.models.adapters.foreign_neuron import ForeignError

__all__ = ["zero_gradient"]

_THRESHOLD = f"zero for at most {percent(LUCK)} of the samples, none missing or not finite"


def zero_gradient(context: Context) -> CheckOutcome:
    """Every sample has an input gradient.

    A gradient attack does not move a sample whose gradient is exactly zero, under noise on every
    draw that an attack averages. Whether it is depends on the draws, so a noisy sample is tested
    four times and counts by the share of them. Other attacks may fool it: what survives all attacks
    is not counted here. Spiking networks lose gradients when no potential is near the threshold,
    because the surrogate derivative is then zero in a whole layer.

    Source: Croce and Hein, 2020 (AutoAttack's flags); Pintor et al., "Indicators of attack
    failure", 2022 (arXiv:2106.09947).
    """
    try:
        grad = largest_gradients(context)
    except AttackError as error:
        return judged(
            failed=True,
            measured=str(error),
            threshold=_THRESHOLD,
            sound="",
            fault="no gradient attack can work on this model, so its robustness is unknown",
            remedy="let finite gradients flow from the logits to the input: no detach or no_grad, "
            "and a straight-through gradient if the model rounds or samples",
            evidence={"error": str(error)},
        )
    count = _zero(grad)
    some = context.share(count)
    share = some.value
    try:
        dead = dead_surrogates(context)
    except ForeignError:  # potentials that cannot be recorded are no obstacle here
        dead = {}
    evidence = {
        "samples": count,
        "share": share,
        "coordinates": float((grad == 0).double().mean()),
        "dead_surrogate": dead,
    }
    remedy = "attack with a wider surrogate"
    if dead:
        layer = max(dead, key=lambda name: dead[name])
        remedy += f"; in {layer} the surrogate is zero for {percent(dead[layer])} of the potentials"
    if share:
        left = _zero(largest_gradients(context, margin))
        evidence["samples_with_margin_loss"] = left
        remedy = remedy if left else "the cross-entropy is saturated: attack with the margin loss"
    draws = f" on all of {EOT} draws" if context.stochastic else ""
    repeats = f" (mean of {REPEATS} repeats)" if context.stochastic else ""
    return judged(
        failed=some.above(LUCK),
        measured=f"{count:g} of {len(context)} input gradients are zero{draws}{repeats}, {some}",
        threshold=_THRESHOLD,
        sound="the attack has a direction",
        fault=f"{percent(share)} of the samples have no input gradient{draws}, so an attack that "
        "follows it cannot move them",
        remedy=remedy,
        evidence=evidence,
    )


def _zero(grad: Tensor) -> float:
    """Return how many samples have no gradient, in the mean over the repeats [R, N, ...]."""
    return sum(int(is_zero(each).sum()) for each in grad) / len(grad)
