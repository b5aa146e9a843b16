"""The gradient of a network's non-spiking twin: same weights, quantised activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.spiking_rules import differentiate
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import classify
from spikeguard.neurons.custom_backward import Analogue

__all__ = ["ANNTwin"]


@dataclass(frozen=True)
class ANNTwin:
    r"""The gradient of the non-spiking network with the same weights; losses are the model's own.

    Every spiking layer becomes the activation function

    .. math:: a = \mathrm{clip}\big(\lfloor L x + 1/2 \rfloor / L,\ 0,\ 1\big), \qquad
              x = \frac{1}{T\,v_{th}} \sum_t I[t]

    whose floor is differentiated as the identity. There is no time axis, so gradients cannot vanish
    or explode over time. It is the gradient of another function, so its direction may differ.

    Args:
        levels: Steps L of the staircase, >= 1; None is the network's T. The public code has 8.

    Raises:
        ValueError: If levels is below 1; at a call, if the model has no spiking layer.

    Source: Bu et al., "Rate gradient approximation attack threats deep spiking neural networks",
        CVPR 2023, whose baseline it is; Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266).
    """

    levels: int | None = None

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"ANNTwin: levels must be >= 1, got {self.levels}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample: the twin's gradient, and the model's own loss."""
        return 1 + FORWARD

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the model's losses [B] and the twin's input gradient."""
        _, grad = differentiate("ANNTwin", Analogue(self.levels), model, x, y, loss)
        with torch.no_grad():  # last, so that a Watch loss records the model's own logits
            losses = loss(classify(model, x.detach(), y), y)
        return losses, grad
