"""Samples whose input gradient is exactly zero: the one definition of a zero gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.attacks.model_access import DEFAULT_EOT, is_stochastic

__all__ = ["is_zero", "largest_gradient", "zero_gradients"]


def zero_gradients(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return for each sample whether its input gradient is exactly zero, bool [B].

    A noisy model's gradient is zero if it is zero on every one of ``DEFAULT_EOT`` draws: an attack
    that averages as many draws does not move the sample. The gradient is that of backpropagation
    with the model's own surrogates at the clean input.

    Args:
        model: The classifier, frozen; its noise is bound by the caller.
        x: Inputs [B, ...].
        y: Labels [B].
        loss: Per-sample loss ``(logits, y) -> [B]``.

    Raises:
        AttackError: If logits or gradients are not finite, or no gradient reaches the input.
    """
    return is_zero(largest_gradient(model, x, y, loss))


def is_zero(grad: Tensor) -> Tensor:
    """Return for each sample whether its gradient [B, ...] is exactly zero, bool [B]."""
    return grad.flatten(1).abs().amax(1) == 0


def largest_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return the largest absolute gradient of each coordinate over the draws [B, ...].

    The arguments are those of :func:`zero_gradients`.

    Raises:
        AttackError: If logits or gradients are not finite, or no gradient reaches the input.
    """
    largest = torch.zeros_like(x)
    for _ in range(DEFAULT_EOT if is_stochastic(model) else 1):
        _, grad = BACKPROP(model, x, y, loss)
        largest = torch.maximum(largest, grad.abs())
    return largest
