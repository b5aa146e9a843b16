"""Gaussian noise on the training images, a cheap baseline for adversarial training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.defences.piece import Piece
from spikeguard.rng import normal

__all__ = ["GaussianNoise"]


@dataclass(frozen=True)
class GaussianNoise(Piece):
    r"""Train on noisy images: x + sigma N(0, 1).

    The result is *not* clamped to [0, 1]. The public code does not clamp in training either; its
    Gaussian attack at test time does.

    Args:
        sigma: Standard deviation of the noise, in input units, >= 0; 0 is plain training.

    Raises:
        ValueError: If sigma is negative or not finite.

    Source: Ding et al., "Robust stable spiking neural networks", ICML 2024, public training code.
    """

    name: ClassVar[str] = "gaussian"

    sigma: float = 8 / 255

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and math.isfinite(self.sigma)):
            raise ValueError(
                f"GaussianNoise: sigma is a standard deviation >= 0, got {self.sigma:g}."
            )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``x`` plus a new draw of noise; the result can be outside [0, 1]."""
        return x + self.sigma * normal(generator, x.shape, dim=0, device=x.device)
