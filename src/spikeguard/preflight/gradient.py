"""Test of the input gradient: it exists, is not zero and raises the loss above chance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import NoGradientError
from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.gradients.zero_gradients import zero_gradients
from spikeguard.attacks.losses import cross_entropy
from spikeguard.rng import SampleStreams, key, randomness, stream

__all__ = ["require_gradient"]

_RADII = (2 / 255, 8 / 255, 0.1, 0.3)
_DRAWS = 4  # random directions that the gradient must beat


def require_gradient(
    model: nn.Module,
    logits: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    seed: int,
) -> tuple[float, float, float, float]:
    """Return (share of zero gradients, eps, rise along the gradient, best rise of random signs)."""
    streams = SampleStreams(key(seed, "check"), torch.arange(len(x)))
    try:
        with randomness(model, streams):
            losses, grad = BACKPROP(model, x, y, cross_entropy)
            zero = float(zero_gradients(model, x, y).double().mean())
    except NoGradientError as error:
        raise ValueError(
            "check: no gradient reaches the input: an encoder under no_grad, or one that draws "
            "spikes (PoissonEncoder, LatencyEncoder), cuts it; show the image itself at every step."
        ) from error
    if zero == 1:
        raise ValueError(
            "check: the input gradient is exactly zero for every image: an encoder that draws "
            "spikes (snntorch.spikegen.rate) has derivative 0, and so has a spike without a "
            "surrogate; show the image itself at every step, or exchange the surrogates."
        )
    eps, along, chance = _rises(logits, x, y, grad, float(losses.mean()), seed)
    if not along > chance:
        raise ValueError(
            f"check: a step of {eps:.3g} along the gradient's sign raises the mean loss by "
            f"{along:.3g}, one in a random direction by {chance:.3g}: the gradient is not that of "
            "the loss; look for a detached or sampling part, or exchange the surrogates."
        )
    return zero, eps, along, chance


def _rises(
    logits: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    grad: Tensor,
    base: float,
    seed: int,
) -> tuple[float, float, float]:
    """Return (eps, rise along the gradient's sign, best rise of random signs) of the mean loss.

    Uses the first radius at which the gradient beats chance, or the last if it never does.
    """
    index = torch.arange(len(x))
    generator = stream(seed, "check", "directions")

    def rise(direction: Tensor, eps: float) -> float:
        moved = (x + eps * direction).clamp(0, 1)
        return float(cross_entropy(logits(moved, index), y).mean()) - base

    found = (0.0, 0.0, 0.0)
    for eps in _RADII:
        draws = torch.randint(0, 2, (_DRAWS, *x.shape), generator=generator).to(x) * 2 - 1
        found = eps, rise(grad.sign(), eps), max(rise(draw, eps) for draw in draws)
        if found[1] > found[2]:
            break
    return found
