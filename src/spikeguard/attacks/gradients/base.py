"""How an attack differentiates a model: as trained, with another surrogate, averaged over noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError, NoGradientError
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import classify
from spikeguard.neurons.modes import backward_mode, spiking_layers
from spikeguard.neurons.surrogate import Surrogate

__all__ = [
    "BACKPROP",
    "Backprop",
    "EoT",
    "Gradient",
    "SwapSurrogate",
    "start_search",
    "draws_per_step",
    "gradient_cost",
    "without_learning",
    "unwrap",
    "is_adaptive",
    "checked_gradient",
]


class Gradient(Protocol):
    """Differentiates a per-sample loss at ``x``."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the gradient of their sum, shaped like ``x``."""


def is_adaptive(gradient: Gradient) -> bool:
    """Whether a gradient learns from step to step, and so has to be begun for each search."""
    inner = getattr(gradient, "inner", None)
    return hasattr(gradient, "begin") or (inner is not None and is_adaptive(inner))


def start_search(gradient: Gradient) -> Gradient:
    """Return the gradient for one search, from its start to its end.

    A gradient that learns from step to step has a method ``begin()`` that returns a fresh one which
    keeps what it learned, per sample; so no search sees what another learned. Others are returned
    as they are.
    """
    if hasattr(gradient, "begin"):
        fresh: Gradient = gradient.begin()
        return fresh
    inner = getattr(gradient, "inner", None)
    if inner is not None and is_adaptive(inner):
        return replace(gradient, inner=start_search(inner))  # type: ignore[type-var]
    return gradient


def without_learning(gradient: Gradient) -> Gradient:
    """Return the gradient for a repeat at the same point: what learns is not to learn twice.

    A gradient that learns has a method ``hold()`` that returns one which uses what was learned.
    """
    if hasattr(gradient, "hold"):
        still: Gradient = gradient.hold()
        return still
    inner = getattr(gradient, "inner", None)
    if inner is not None and without_learning(inner) is not inner:
        return replace(gradient, inner=without_learning(inner))  # type: ignore[type-var]
    return gradient


def unwrap(gradient: object) -> object:
    """Return what is differentiated with, inside whatever averages or records it."""
    inner = getattr(gradient, "inner", None)
    return gradient if inner is None else unwrap(inner)


def draws_per_step(gradient: object) -> int:
    """Return how many times a gradient averages over the model's noise in one step."""
    return gradient.draws * draws_per_step(gradient.inner) if isinstance(gradient, EoT) else 1


def gradient_cost(gradient: Gradient) -> float:
    """Return what one call spends on a sample, in forward and backward passes of the model.

    A gradient that takes more or less than one says so in a property ``cost``; what wraps an
    ``inner`` gradient and does not is as dear as that.
    """
    inner = getattr(gradient, "inner", None)
    own = 1.0 if inner is None else gradient_cost(inner)
    return float(getattr(gradient, "cost", own))


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
            losses = loss(classify(model, x, y), y)
            grad = None
            if losses.requires_grad:
                (grad,) = torch.autograd.grad(losses.sum(), x, allow_unused=True)
        return losses.detach(), checked_gradient(grad)


def checked_gradient(grad: Tensor | None) -> Tensor:
    """Return an input gradient that is there and finite.

    Raises:
        AttackError: If it is not.
    """
    if grad is None:
        raise NoGradientError(
            "attack: no gradient reaches the input; the model detaches it (a no_grad encoder?)."
        )
    if not bool(torch.isfinite(grad).all()):
        rows = int((~torch.isfinite(grad)).flatten(1).any(1).sum())
        raise AttackError(f"attack: the gradient is not finite for {rows} of {len(grad)} samples.")
    return grad


BACKPROP = Backprop()


@dataclass(frozen=True)
class SwapSurrogate:
    """Differentiate every spiking layer with another surrogate; the forward pass stays exact.

    Args:
        surrogate: A surrogate for all layers, or a factor by which each layer's own is widened.

    Raises:
        ValueError: If a factor is not positive; at a call, if the model has no spiking layer.

    Source: Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266), who take the worst over many.
    """

    surrogate: Surrogate | float

    def __post_init__(self) -> None:
        factor = self.surrogate
        if isinstance(factor, int | float) and not (factor > 0 and math.isfinite(factor)):
            raise ValueError(f"SwapSurrogate: a factor must be positive, got {factor:g}.")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        if not spiking_layers(model):
            raise ValueError(
                "SwapSurrogate: the model has no spiking layer of spikeguard.neurons, hence no "
                "surrogate to exchange; adapt another framework's network with spikeguard.foreign, "
                "or use Backprop(), for example with suite 'papers'."
            )
        with backward_mode(model, self.surrogate):
            return BACKPROP(model, x, y, loss)


@dataclass(frozen=True)
class EoT:
    r"""Expectation over transformation: the mean over draws of the gradient of the loss.

    .. math:: g = \frac1K \sum_k \nabla_x L(z(x; \omega_k), y)

    The mean is of gradients of the loss, not the gradient of the loss of mean logits.

    Args:
        draws: Number K of noise draws, >= 1.
        inner: The gradient that is averaged. One that learns from step to step learns from the
            first draw of a step.

    Source: Athalye et al., "Synthesizing robust adversarial examples", ICML 2018.
    """

    draws: int
    inner: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"EoT: draws must be >= 1, got {self.draws}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations a sample."""
        return self.draws * gradient_cost(self.inner)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the mean losses [B] and the mean gradient."""
        losses, grad = self.inner(model, x, y, loss)
        again = without_learning(self.inner)
        for _ in range(self.draws - 1):
            more_losses, more_grad = again(model, x, y, loss)
            losses, grad = losses + more_losses, grad + more_grad
        return losses / self.draws, grad / self.draws
