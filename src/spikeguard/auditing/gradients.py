"""G15, S6, S7: is there an input gradient for the attack to follow?"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.attacks import AttackError, Loss, cross_entropy, margin
from spikeguard.auditing.context import Context, title
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.shares import percent
from spikeguard.neurons import record

__all__ = ["dead_surrogates", "zero_gradient"]

_DEAD = 1e-6  # a surrogate derivative below this passes nothing on
_THRESHOLD = "0 samples with a zero gradient, none missing or not finite"


def zero_gradient(context: Context) -> Finding:
    """Every sample has an input gradient.

    A sample whose gradient is exactly zero is never attacked: it counts as robust whatever the network
    does nearby. Spiking networks lose gradients where no membrane comes near the threshold, so that the
    surrogate derivative is zero in a whole layer.

    Source: Croce et al. (AutoAttack's flags); Pintor et al., "Indicators of attack failure", 2022
    (arXiv:2106.09947).
    """
    heading = title(zero_gradient)
    try:
        grad = _gradients(context, cross_entropy)
    except AttackError as error:
        return Finding(
            "G15",
            heading,
            "fail",
            str(error),
            _THRESHOLD,
            "no gradient attack can work on this model, so its robustness is unknown",
            "let gradients flow from the logits to the input: no detach, no_grad or rounding without a "
            "straight-through gradient, and finite weights",
            {"error": str(error)},
        )
    zero = grad.flatten(1).abs().amax(1) == 0
    dead = dead_surrogates(context)
    evidence = {
        "samples": int(zero.sum()),
        "share": float(zero.double().mean()),
        "coordinates": float((grad == 0).double().mean()),
        "dead_surrogate": dead,
    }
    if not bool(zero.any()):
        return Finding("G15", heading, "pass", f"0 of {len(zero)}", _THRESHOLD, evidence=evidence)
    other = _gradients(context, margin).flatten(1).abs().amax(1) == 0
    evidence["samples_with_margin_loss"] = int(other.sum())
    remedy = "attack with a wider surrogate (SwapSurrogate)"
    if not bool(other.any()):
        remedy = "the cross-entropy is saturated: attack with loss=margin"
    elif dead:
        layer = max(dead, key=lambda name: dead[name])
        remedy += (
            f"; in layer {layer} the surrogate is zero for {percent(dead[layer])} of potentials"
        )
    return Finding(
        "G15",
        heading,
        "fail",
        f"{int(zero.sum())} of {len(zero)} gradients are zero",
        _THRESHOLD,
        f"{percent(evidence['share'])} of the samples have no input gradient at all and count as robust "
        "only because the attack cannot move them",
        remedy,
        evidence,
    )


def dead_surrogates(context: Context) -> dict[str, float]:
    """Return, for every spiking layer, the share of (neuron, step) whose surrogate passes nothing."""
    dead: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for index in context.batches():
            with context.searching(index) as (x, _), record(context.model) as trace:
                context.model(x)
            for name, layer in trace.items():
                slope = layer.surrogate(layer.v - layer.v_th)
                dead.setdefault(name, []).append((slope.abs() < _DEAD).float().flatten(1).mean(0))
    return {name: float(torch.cat(parts).mean()) for name, parts in dead.items()}


def _gradients(context: Context, loss: Loss) -> Tensor:
    """Return the input gradients [N, ...] that the attacks start from."""
    grads = []
    for index in context.batches():
        with context.searching(index) as (x, y):
            grads.append(context.gradient()(context.model, x, y, loss)[1].cpu())
    return torch.cat(grads)
