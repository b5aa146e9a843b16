"""MembraneReadout: the loss of the output neurons' potentials, for models that count spikes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError, NoGradientError
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import classify
from spikeguard.neurons.modes import backward_mode, record, spiking_layers
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.neurons.trace import LayerTrace

__all__ = ["MembraneReadout", "answers_in_spikes"]


def answers_in_spikes(model: nn.Module) -> bool:
    """Whether a model's outputs are firing rates: no weights come after its last spiking layer.

    Modules without weights may: one that averages the neurons of a class, or dropout.
    """
    layers = tuple(spiking_layers(model))
    after: list[nn.Module] | None = None
    for name, module in model.named_modules():
        if any(name == layer or name.startswith(f"{layer}.") for layer in layers):
            after = []
        elif after is not None:
            after.append(module)
    return after is not None and not any(True for each in after for _ in each.parameters())


@dataclass(frozen=True)
class MembraneReadout:
    r"""Differentiate the loss of the output neurons' mean potentials instead of their rates.

    .. math:: u_k = \frac1T \sum_t v_k[t], \qquad g = \nabla_x\, \ell(u(x), y)

    Rates are multiples of 1/T: they tie, saturate, and do not change with a small step. Potentials
    before the reset do. The search also gets the losses of the potentials; with ``margin`` a loss
    is the difference of two potentials. Misclassification is still decided by the model's own
    logits. Where each class has several output neurons, one after another, their potentials are
    averaged. If the last layer does not spike, or its neurons cannot be shared out among the
    classes, this is plain backpropagation.

    Args:
        surrogate: A surrogate for the layers below, or a factor that widens each layer's own
            surrogate; None keeps the model's own.

    Raises:
        AttackError: At a call, if logits or gradients are not finite, or no gradient reaches the
            input.

    Source: SpikeGuard's own; the potential as a readout is that of Neftci et al., 2019
        (arXiv:1901.09948).
    """

    surrogate: Surrogate | float | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] of the potentials, and their input gradient, shaped like ``x``."""
        x = x.detach().requires_grad_()
        swapped = self.surrogate
        mode = nullcontext() if swapped is None else backward_mode(model, swapped)
        with torch.enable_grad(), mode, record(model) as trace:
            logits = classify(model, x, y)
            read = _potentials(list(trace.values()), logits) if answers_in_spikes(model) else logits
            losses = loss(read, y)
            grad = None
            if losses.requires_grad:
                (grad,) = torch.autograd.grad(losses.sum(), x, allow_unused=True)
        if grad is None:
            raise NoGradientError("MembraneReadout: no gradient reaches the input.")
        if not bool(torch.isfinite(grad).all()):
            raise AttackError("MembraneReadout: the gradient is not finite.")
        loss(logits.detach(), y)  # last, so that a Watch loss records the model's own logits
        return losses.detach(), grad


def _potentials(layers: list[LayerTrace], logits: Tensor) -> Tensor:
    """Return the mean potentials [B, K] of the last layer's neurons, or the logits; see above."""
    if not layers:
        return logits
    u = layers[-1].v.mean(0).flatten(1)
    neurons, classes = u.shape[1], logits.shape[1]
    return u.view(len(u), classes, -1).mean(2) if neurons % classes == 0 else logits
