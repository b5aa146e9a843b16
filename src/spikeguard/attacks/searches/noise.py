"""Uniform noise in the threat set: the baseline for every other attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.losses import Loss, margin
from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness

__all__ = ["UniformNoise"]


@dataclass(frozen=True)
class UniformNoise:
    """Draw points of the threat set and keep, for each sample, the one of highest loss.

    Args:
        threat: The set the noise is drawn from.
        draws: Points tried for each sample, >= 1.
        loss: Loss that ranks the points; the margin ranks misclassified points above all others.

    Raises:
        ValueError: If draws is below 1.

    Source: Carlini et al., "On evaluating adversarial robustness", 2019 (arXiv:1902.06705).
    """

    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum"})

    threat: Threat
    draws: int = 10
    loss: Loss = margin

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"UniformNoise: draws must be >= 1, got {self.draws}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample: one forward pass, a third of one, per draw."""
        return self.draws * FORWARD

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return noisy inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            worst = self.threat.sample(x, streams)
            logits = classify(model, worst, y)
            wrong, highest = logits.argmax(1) != y, self.loss(logits, y)
            for _ in range(self.draws - 1):
                drawn = self.threat.sample(x, streams)
                logits = classify(model, drawn, y)
                its_wrong, height = logits.argmax(1) != y, self.loss(logits, y)
                higher = (its_wrong & ~wrong) | ((its_wrong == wrong) & (height > highest))
                worst = torch.where(higher.view(-1, *[1] * (x.ndim - 1)), drawn, worst)
                highest, wrong = torch.where(higher, height, highest), wrong | its_wrong
            return worst
