"""How an attack differentiates the model: as trained, with another surrogate, or averaged over
noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError, Loss, NoGradientError
from spikeguard.neurons import Surrogate, backward_mode

__all__ = ["BACKPROP", "Backprop", "EoT", "Gradient", "SwapSurrogate"]


class Gradient(Protocol):
    """Differentiates a per-sample loss at ``x``."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the gradient of their sum, shaped like ``x``."""


@dataclass(frozen=True)
class Backprop:
    """Backpropagation with the surrogates the model carries."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient.

        Raises:
            AttackError: If logits or gradients are not finite, or no gradient reaches the input.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(x)
            if not bool(torch.isfinite(logits).all()):
                raise AttackError(
                    "attack: the model's logits are not finite; check its weights first."
                )
            losses = loss(logits, y)
            grad = None
            if losses.requires_grad:
                (grad,) = torch.autograd.grad(losses.sum(), x, allow_unused=True)
        if grad is None:
            raise NoGradientError(
                "attack: no gradient reaches the input; the model detaches it (a no_grad encoder?)."
            )
        if not bool(torch.isfinite(grad).all()):
            rows = int((~torch.isfinite(grad)).flatten(1).any(1).sum())
            raise AttackError(f"attack: the gradient is not finite for {rows} of {len(x)} samples.")
        return losses.detach(), grad


BACKPROP = Backprop()


@dataclass(frozen=True)
class SwapSurrogate:
    """Differentiate every spiking layer with another surrogate; the forward pass stays exact.

    Args:
        surrogate: A surrogate for all layers, or a factor by which each layer's own is widened.

    Source: Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266), who take the worst over many.
    """

    surrogate: Surrogate | float

    def __post_init__(self) -> None:
        if isinstance(self.surrogate, int | float) and not self.surrogate > 0:
            raise ValueError(f"SwapSurrogate: a factor must be positive, got {self.surrogate:g}.")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        with backward_mode(model, self.surrogate):
            return BACKPROP(model, x, y, loss)


@dataclass(frozen=True)
class EoT:
    r"""Expectation over transformation: the mean over draws of the gradient of the loss.

    .. math:: g = \frac1K \sum_k \nabla_x L(z(x; \omega_k), y)

    The mean is of gradients of the loss, not the gradient of the loss of mean logits.

    Args:
        draws: Number K of noise draws, >= 1.
        inner: The gradient that is averaged.

    Source: Athalye et al., "Synthesizing robust adversarial examples", ICML 2018.
    """

    draws: int
    inner: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"EoT: draws must be >= 1, got {self.draws}.")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the mean losses [B] and the mean gradient."""
        losses, grad = self.inner(model, x, y, loss)
        for _ in range(self.draws - 1):
            more_losses, more_grad = self.inner(model, x, y, loss)
            losses, grad = losses + more_losses, grad + more_grad
        return losses / self.draws, grad / self.draws
