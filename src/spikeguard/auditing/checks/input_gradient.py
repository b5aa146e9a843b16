"""Is there an input gradient for the attack to follow? Check G15."""

from __future__ import annotations

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.gradients.zero_gradients import is_zero
from spikeguard.attacks.losses import margin
from spikeguard.auditing.check import CheckOutcome, judged
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.measurements.input_gradients import dead_surrogates, largest_gradients
from spikeguard.auditing.tolerances import LUCK, percent
from spikeguard.models.adapters.foreign_neuron import ForeignError

__all__ = ["zero_gradient"]

_THRESHOLD = f"zero for at most {percent(LUCK)} of the samples, none missing or not finite"


def zero_gradient(context: Context) -> CheckOutcome:
    """Every sample has an input gradient.

    A gradient attack does not move a sample whose gradient is exactly zero, under noise on every
    draw that an attack averages. Other attacks may fool it: what survives all attacks is not
    counted here. Spiking networks lose gradients when no potential is near the threshold, because
    the surrogate derivative is then zero in a whole layer.

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
    zero = is_zero(grad)
    some = context.share(int(zero.sum()))
    share = some.value
    try:
        dead = dead_surrogates(context)
    except ForeignError:  # potentials that cannot be recorded are no obstacle here
        dead = {}
    evidence = {
        "samples": int(zero.sum()),
        "share": share,
        "coordinates": float((grad == 0).double().mean()),
        "dead_surrogate": dead,
    }
    remedy = "attack with a wider surrogate"
    if dead:
        layer = max(dead, key=lambda name: dead[name])
        remedy += f"; in {layer} the surrogate is zero for {percent(dead[layer])} of the potentials"
    if share:
        left = int(is_zero(largest_gradients(context, margin)).sum())
        evidence["samples_with_margin_loss"] = left
        remedy = remedy if left else "the cross-entropy is saturated: attack with the margin loss"
    draws = f" on all of {EOT} draws" if context.stochastic else ""
    return judged(
        failed=some.above(LUCK),
        measured=f"{int(zero.sum())} of {len(zero)} input gradients are zero{draws}, {some}",
        threshold=_THRESHOLD,
        sound="the attack has a direction",
        fault=f"{percent(share)} of the samples have no input gradient{draws}, so an attack that "
        "follows it cannot move them",
        remedy=remedy,
        evidence=evidence,
    )
