"""StoG: the prior on the probabilities of stochastic gates (the neuron is ``neurons.StoG``)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from spikeguard.defences.piece import Measured, Piece, Step
from spikeguard.neurons.stog import StoG

__all__ = ["GatePrior"]


@dataclass(frozen=True)
class GatePrior(Piece):
    r"""Pull the gate probabilities towards 0 in the first part of the training, then freeze them.

    .. math:: L = L_{CE} + \frac{\gamma}{2} \sum_{l,i} p_{l,i}^2 \quad \text{while progress} < until

    over all gates of all ``StoG`` neurons. p is trained with the optimiser of the weights, without
    weight decay. From ``until`` on, p is constant and only the weights are trained.

    Args:
        gamma: Weight of the prior, >= 0.
        until: Share of the training in which p is trained, in [0, 1]; the published 100 of 200
            epochs are 0.5.

    Raises:
        ValueError: If a number is out of range; before training, if the model has no gates.

    Source: Ding et al., "Enhancing the robustness of spiking neural networks with stochastic gating
        mechanisms", AAAI 2024, and its public training code.
    """

    name: ClassVar[str] = "stog"

    gamma: float = 5e-6
    until: float = 0.5

    @classmethod
    def example(cls) -> Self:
        """Return an instance with a visible effect at all times, for the contract tests."""
        return cls(gamma=0.1, until=1.0)

    def __post_init__(self) -> None:
        if not (self.gamma >= 0 and math.isfinite(self.gamma)):
            raise ValueError(f"GatePrior: gamma is a weight >= 0, got {self.gamma:g}.")
        if not 0 <= self.until <= 1:
            raise ValueError(
                f"GatePrior: until is a share of the training in [0, 1], got {self.until:g}."
            )

    def require(self, model: nn.Module, options: object) -> None:
        """Reject a model without gates."""
        if next(_gates(model), None) is None:
            raise ValueError(
                "stog: the model has no stochastic gates; write model.neuron: {name: stog}."
            )

    def frozen(self, model: nn.Module, progress: float) -> list[nn.Parameter]:
        """Return the gate probabilities from progress ``until`` on."""
        return [] if progress < self.until else list(_gates(model))

    def term(self, step: Step) -> Tensor:
        """Return gamma / 2 times the sum of p^2, or 0 once p is frozen."""
        if step.progress >= self.until or next(_gates(step.model), None) is None:
            return step.seen.logits.new_zeros(())
        return self.measured(step).loss

    def measured(self, step: Step) -> Measured:
        """Return gamma (0 once p is frozen) and half the sum of p^2."""
        squares = [p.square().sum() for p in _gates(step.model)]
        weight = self.gamma if step.progress < self.until else 0.0
        return Measured(weight, 0.5 * torch.stack(squares).sum())


def _gates(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, StoG) and module.p is not None:
            yield module.p
