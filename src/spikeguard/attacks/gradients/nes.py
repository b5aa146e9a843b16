"""NES (natural evolution strategies): a gradient estimate from finite differences of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD, AttackError
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import classify
from spikeguard.rng import SampleStreams, random_sources, randomness, stream

__all__ = ["NES"]


@dataclass(frozen=True)
class NES:
    r"""Antithetic finite differences of the loss along random directions.

    .. math::
        g = \frac1K \sum_{k=1}^{K} \frac{f(x + \sigma u_k) - f(x - \sigma u_k)}{2 \sigma}\,u_k,
        \qquad u_k \sim N(0, I)

    It uses only the model's outputs, so it does not depend on a surrogate. Each step of a search
    draws new directions, the same for all samples, so that a sample's result does not depend on its
    batch. A stochastic model uses the same noise at both points of a pair. A direct call is the
    first step of a search.

    Args:
        samples: Number K of directions, >= 1; two forward passes each.
        sigma: Length of a difference in each pixel, in input units, > 0. A spiking network is
            piecewise constant, so with a very small sigma the differences are zero.
        seed: Seed of the directions.

    Raises:
        ValueError: If samples or sigma is out of range.

    Source: Ilyas et al., "Black-box adversarial attacks with limited queries and information",
        ICML 2018 (arXiv:1804.08598).
    """

    samples: int = 32
    sigma: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"NES: samples counts directions, >= 1, got {self.samples}.")
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"NES: sigma is a length > 0, got {self.sigma:g}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample: two forward passes per direction, and one at ``x``."""
        return (2 * self.samples + 1) * FORWARD

    def begin(self) -> _Search:
        """Return a gradient for one search, with its own step counter."""
        return _Search(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the estimate, shaped like ``x``."""
        return self.begin()(model, x, y, loss)


class _Search:
    """State of one search: new directions at every call, seeded by the call's number."""

    def __init__(self, settings: NES):
        self.settings = settings
        self._calls = 0

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the estimate, shaped like ``x``."""
        nes, x = self.settings, x.detach()
        source = stream(nes.seed, "nes", self._calls)
        self._calls += 1
        grad = torch.zeros_like(x)
        for _ in range(nes.samples):
            u = torch.randn(x.shape[1:], generator=source, dtype=torch.float32, device="cpu").to(x)
            noise = _repeatable(model, x)
            with noise():
                above = loss(classify(model, x + nes.sigma * u, y), y)
            with noise():
                below = loss(classify(model, x - nes.sigma * u, y), y)
            slope = ((above - below) / (2 * nes.sigma)).to(x.dtype)
            grad += slope.view(-1, *[1] * (x.ndim - 1)) * u
        losses = loss(classify(model, x, y), y)  # last, so that a Watch loss records these logits
        if not bool(torch.isfinite(grad).all()):
            raise AttackError("attack: the finite differences are not finite; the loss overflows.")
        return losses, grad / nes.samples


def _repeatable(model: nn.Module, x: Tensor) -> Callable[[], AbstractContextManager[None]]:
    """Return a context manager that replays one noise draw; each call of this function draws anew.

    For a deterministic model it does nothing.
    """
    sources = random_sources(model)
    if not sources:
        return nullcontext
    drawn = SampleStreams.of(sources[0].current(x.device), len(x)).bits((len(x),), dim=0)
    return lambda: randomness(model, SampleStreams(0, drawn))
