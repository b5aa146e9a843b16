"""Gradients: backpropagation, another surrogate, the mean over noise draws.

An adaptive gradient keeps state from step to step of a search (``ASSG``, ``NES``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    "nested",
    "is_adaptive",
    "checked_gradient",
]


class Gradient(Protocol):
    """Differentiates a per-sample loss at ``x``."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the gradient of their sum, shaped like ``x``."""


def is_adaptive(gradient: Gradient) -> bool:
    """Whether a gradient keeps state from step to step, so that each search needs a fresh one."""
    inner = getattr(gradient, "inner", None)
    return hasattr(gradient, "begin") or (inner is not None and is_adaptive(inner))


def start_search(gradient: Gradient) -> Gradient:
    """Return the gradient object to use throughout one search.

    An adaptive gradient has a method ``begin()``, which returns a fresh copy with its own state per
    sample, so that searches do not share state. Other gradients are returned unchanged.
    """
    if hasattr(gradient, "begin"):
        fresh: Gradient = gradient.begin()
        return fresh
    inner = getattr(gradient, "inner", None)
    if inner is not None and is_adaptive(inner):
        return replace(gradient, inner=start_search(inner))  # type: ignore[type-var]
    return gradient


def without_learning(gradient: Gradient) -> Gradient:
    """Return the gradient for another draw at the same point, with its state held constant.

    An adaptive gradient may have a method ``hold()``, which returns a copy that uses the current
    state without updating it.
    """
    if hasattr(gradient, "hold"):
        still: Gradient = gradient.hold()
        return still
    inner = getattr(gradient, "inner", None)
    if inner is not None and without_learning(inner) is not inner:
        return replace(gradient, inner=without_learning(inner))  # type: ignore[type-var]
    return gradient


def unwrap(gradient: object) -> object:
    """Return the innermost gradient, without the wrappers that average or record it.

    A gradient of another function than the model (a true ``of_another_function``) is no wrapper,
    even if it has an ``inner`` gradient.
    """
    inner = None if getattr(gradient, "of_another_function", False) else _inner(gradient)
    return gradient if inner is None else unwrap(inner)


def draws_per_step(gradient: object) -> int:
    """Return the number of noise draws a gradient averages over in one step."""
    return gradient.draws * draws_per_step(gradient.inner) if isinstance(gradient, EoT) else 1


def gradient_cost(gradient: Gradient) -> float:
    """Return the cost of one call per sample, in forward and backward passes of the model.

    The value is the gradient's property ``cost``. Without it, the cost is that of the ``inner``
    gradient, or 1 if there is none.
    """
    inner = getattr(gradient, "inner", None)
    own = 1.0 if inner is None else gradient_cost(inner)
    return float(getattr(gradient, "cost", own))


def nested(gradient: object) -> Iterator[object]:
    """Yield a gradient and all gradients inside it, the outermost first; nothing for None."""
    while gradient is not None:
        yield gradient
        gradient = _inner(gradient)


def _inner(gradient: object) -> object:
    return getattr(gradient, "inner", None)


@dataclass(frozen=True)
class Backprop:
    """Backpropagation with the model's own surrogates."""

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
    """Return an input gradient after checking that it exists and is finite.

    Raises:
        NoGradientError: If there is none.
        AttackError: If it is not finite.
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
    """Differentiate every spiking layer with another surrogate; the forward pass is unchanged.

    Args:
        surrogate: A surrogate for all layers, or a factor that widens each layer's own surrogate.

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
                "surrogate to replace; wrap another framework's network with spikeguard.foreign, "
                "or use Backprop(), for example with suite 'papers'."
            )
        with backward_mode(model, self.surrogate):
            return BACKPROP(model, x, y, loss)


@dataclass(frozen=True)
class EoT:
    r"""Expectation over transformation (EoT): the mean gradient of the loss over noise draws.

    .. math:: g = \frac1K \sum_k \nabla_x L(z(x; \omega_k), y)

    This is the mean of the gradients, not the gradient of the loss of the mean logits.

    Args:
        draws: Number K of noise draws, >= 1.
        inner: The gradient to average. An adaptive gradient updates its state on the first draw of
            a step only.

    Source: Athalye et al., "Synthesizing robust adversarial examples", ICML 2018.
    """

    draws: int
    inner: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"EoT: draws must be >= 1, got {self.draws}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        return self.draws * gradient_cost(self.inner)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the mean losses [B] and the mean gradient."""
        losses, grad = self.inner(model, x, y, loss)
        again = without_learning(self.inner)
        for _ in range(self.draws - 1):
            more_losses, more_grad = again(model, x, y, loss)
            losses, grad = losses + more_losses, grad + more_grad
        return losses / self.draws, grad / self.draws
