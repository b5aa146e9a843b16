"""Backward rules for foreign spiking layers, whose own backward pass cannot be replaced.

The spiking layers are cut out of the autograd graph of an ordinary pass. They are processed in
reverse order: autograd differentiates the code between them, the rule differentiates the layers
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP, checked_gradient
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import classify
from spikeguard.models.adapters.classifier import Foreign
from spikeguard.models.adapters.cutting import Cut, cutting, replacing
from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.models.adapters.frameworks.dynamics import Dynamics
from spikeguard.neurons.custom_backward import Analogue, BackwardRule, Fired

__all__ = ["activated", "cut_gradient"]


def cut_gradient(
    rule: BackwardRule, adapter: Foreign, model: nn.Module, x: Tensor, y: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Return the losses [B] and the input gradient, with a rule in every spiking layer.

    Spikes fed back to their own layer or an earlier one carry no gradient there. All computation is
    in the precision of x: autocast is disabled.

    Args:
        rule: Computes the slope of each layer from its potentials and spikes in this pass.
        adapter: The foreign network, with its presentation already determined.
        model: The model under attack: the adapter, or a module that contains it.
        x: Inputs [B, ...] in [0, 1].
        y: Labels [B].
        loss: Per-sample loss ``(logits, y) -> [B]``.

    Raises:
        ForeignError: If the potentials of a layer cannot be recorded.
        AttackError: If the gradient is not finite, or none reaches the input.
    """
    neurons, T = adapter.spiking_layers().values(), adapter.T
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, enabled=False):  # potentials are recomputed: same precision
        with torch.enable_grad(), cutting(neurons, T) as cuts:
            losses = loss(classify(model, x, y), y)
            ends, weights = [losses.sum()], [torch.ones_like(losses[0])]
        for cut in reversed(cuts):
            found = _grad(ends, cut.leaves, weights)
            passed = zip(cut.leaves, found, strict=True)
            whole = cut.joined([torch.zeros_like(s) if g is None else g for s, g in passed])
            ends += cut.currents
            weights += cut.split(_through(rule, cut, whole))
        (grad,) = _grad(ends, [x], weights)
    return losses.detach(), checked_gradient(grad if losses.requires_grad else None)


def activated(
    analogue: Analogue, adapter: Foreign, model: nn.Module, x: Tensor, y: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Return losses and gradient of the network with activation functions as spiking layers.

    Arguments as for :func:`cut_gradient`. A layer that is called step by step uses each step's
    current as the mean over time, which is exact for a constant input.

    Raises:
        ForeignError: If the recurrence of a layer is not known.
        AttackError: If the gradient is not finite, or none reaches the input.
    """
    T = adapter.T

    def output(neuron: ForeignNeuron, current: Tensor, spikes: Tensor) -> Tensor:
        known = neuron.recurrence()
        gate = torch.as_tensor(known.gain, dtype=current.dtype, device=current.device)
        if not neuron.framework.multistep(neuron.module):
            return analogue(current[None], gate=gate, v_th=known.v_th, T=T)[0]
        cut = Cut(neuron, T, [current])
        whole = analogue(cut.joined([current]), gate=gate, v_th=known.v_th, T=None)
        return cut.split(whole)[0].reshape(spikes.shape)

    with replacing(adapter.spiking_layers().values(), output):
        return BACKPROP(model, x, y, loss)


def _grad(
    ends: Sequence[Tensor], inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the derivatives with respect to the inputs; None for an input without influence."""
    pairs = [(end, weight) for end, weight in zip(ends, weights, strict=True) if end.requires_grad]
    if not pairs:
        return (None,) * len(inputs)
    live, loads = zip(*pairs, strict=True)
    return torch.autograd.grad(live, inputs, loads, retain_graph=True, allow_unused=True)


@torch.no_grad()
def _through(rule: BackwardRule, cut: Cut, grad: Tensor) -> Tensor:
    """Return the gradient of a layer's currents from that of its spikes, [T, B, *N] each."""
    current, spikes = (
        cut.joined([c.detach() for c in part]) for part in (cut.currents, cut.leaves)
    )
    trace = cut.neuron.trace(current, spikes)
    known = cut.neuron.recurrence()
    decay, gain = (
        torch.as_tensor(each, dtype=trace.v.dtype, device=trace.v.device).detach()
        for each in (known.decay, known.gain)
    )
    fired = Fired(cut.neuron.module, lambda: current * gain, trace.v, spikes, decay, known.v_th)
    slope, temporal, averaged, reset = rule(fired)
    slope = slope.to(grad.dtype).expand_as(grad)
    if temporal:
        detached = known.detach_reset or not reset
        found = _over_steps(known, current, spikes, slope, grad, detached)
    else:
        found = grad * slope * gain
    return found.mean(0, keepdim=True).expand_as(found) if averaged else found


def _over_steps(
    known: Dynamics,
    current: Tensor,
    spikes: Tensor,
    slope: Tensor,
    grad: Tensor,
    detach_reset: bool,
) -> Tensor:
    """Run the backward pass through a layer's own recurrence, with ``slope`` as ds/dv."""
    with torch.enable_grad():
        drive = current.detach().requires_grad_()
        fired = [each.detach().requires_grad_() for each in spikes]
        v = known.potentials(drive, torch.stack(fired)).unbind()
    into: list[Tensor] = []  # gradient of v[t] through s[t], last step first
    for t in reversed(range(len(v))):
        later = None
        if into and not detach_reset:
            (later,) = _grad(v[t + 1 :], [fired[t]], into[::-1])
        into.append(slope[t] * (grad[t] if later is None else grad[t] + later))
    (found,) = _grad(v, [drive], into[::-1])
    assert found is not None
    return found
