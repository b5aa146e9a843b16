"""Is there an input gradient for the attack to follow? Check G15."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.losses import Loss, cross_entropy, margin
from spikeguard.auditing.check import CheckOutcome, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.input_gradients import dead_surrogates, input_gradients
from spikeguard.auditing.tolerances import percent
from spikeguard.models.adapters.foreign_neuron import ForeignError

__all__ = ["zero_gradient"]

_THRESHOLD = "no sample with a zero gradient, none missing or not finite"


def zero_gradient(context: Context) -> CheckOutcome:
    """Every sample has an input gradient.

    A sample whose gradient is exactly zero is never attacked: it counts as robust whatever the
    network does nearby. Spiking networks lose gradients when no potential is near the threshold,
    because the surrogate derivative is then zero in a whole layer.

    Source: Croce and Hein, 2020 (AutoAttack's flags); Pintor et al., "Indicators of attack
    failure", 2022 (arXiv:2106.09947).
    """
    try:
        grad = _all_gradients(context, cross_entropy)
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
    zero = _all_zero(grad)
    share = float(zero.double().mean())
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
        left = int(_all_zero(_all_gradients(context, margin)).sum())
        evidence["samples_with_margin_loss"] = left
        remedy = remedy if left else "the cross-entropy is saturated: attack with the margin loss"
    return judged(
        failed=share > 0,
        measured=f"{int(zero.sum())} of {len(zero)} input gradients are zero",
        threshold=_THRESHOLD,
        sound="the attack has a direction for every sample",
        fault=f"{percent(share)} of the samples have no input gradient and count as robust only "
        "because the attack cannot move them",
        remedy=remedy,
        evidence=evidence,
    )


def _all_gradients(context: Context, loss: Loss) -> Tensor:
    return torch.cat([grad for _, grad in input_gradients(context, loss)])


def _all_zero(grad: Tensor) -> Tensor:
    """Return whether each sample's gradient is exactly zero [N]."""
    return grad.flatten(1).abs().amax(1) == 0
