"""RAT: a retraction of the weight matrices towards orthonormal rows after each step (Parseval)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from spikeguard.defences.piece import Piece
from spikeguard.models.resnet import ConvexCombination

__all__ = ["RAT", "project_simplex", "retract"]

_PRESETS = {
    ("cifar10", "vgg11"): 5e-4,
    ("cifar10", "wrn16_4"): 4e-3,
    ("cifar100", "vgg11"): 1e-3,
    ("cifar100", "wrn16_4"): 4e-3,
}
_WIDE = 200  # linear layers with at least this many outputs are retracted in part at each step
_SHARE = 0.3  # share of their rows


@dataclass(frozen=True)
class RAT(Piece):
    r"""Regularised adversarial training: a retraction that bounds the gain of each layer.

    .. math:: W \leftarrow (1 + \beta)\,W - \beta\,W W^T W, \qquad
              \sigma_i \leftarrow \sigma_i + \beta\,(\sigma_i - \sigma_i^3)

    after every optimiser step, for each convolution (its weight as a matrix of out x in k k) and
    each linear layer, the last one included. Singular values move towards 1; orthonormal rows do
    not change. A linear layer with 200 outputs or more is retracted in a new random 30 % of its
    rows per step, treated as one matrix. The coefficients of every ConvexCombination are then
    projected on the simplex (c >= 0, sum 1), so that the gain of a residual join is at most that of
    its branches.

    ``RAT`` is only the constraint; the adversarial half of the method is ``AT``:
    ``AT(eps=2 / 255, steps=2, step_size=1 / 255) | RAT()``.

    Args:
        beta: Strength of the retraction, in [0, 1); 0 is plain training (no projection either). It
            is not multiplied by the learning rate, so its share of a step grows as the rate falls.

    Raises:
        ValueError: If beta is out of range; before training, if weight decay is on.

    Example:
        >>> RAT.preset("cifar10", "wrn16_4")
        RAT(beta=0.004)

    Source: Ding et al., "SNN-RAT", NeurIPS 2022, and its public code; Cisse et al., "Parseval
        networks", ICML 2017.
    """

    name: ClassVar[str] = "rat"

    beta: float = 5e-4

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise ValueError(
                f"RAT: beta is a strength in [0, 1), got {self.beta:g}; published values are "
                "0.0005 to 0.004."
            )

    @classmethod
    def preset(cls, dataset: str, network: str) -> Self:
        """Return the published strength for "cifar10" or "cifar100", "vgg11" or "wrn16_4"."""
        if (dataset, network) not in _PRESETS:
            known = ", ".join(" ".join(names) for names in _PRESETS)
            raise ValueError(f"RAT: presets are {known}; got {dataset} {network}.")
        return cls(beta=_PRESETS[dataset, network])

    def require(self, model: nn.Module, options: object) -> None:
        """Reject weight decay: it pulls the singular values to 0, RAT pulls them to 1."""
        decay = getattr(options, "weight_decay", 0.0)
        if self.beta > 0 and decay > 0:
            raise ValueError(
                f"RAT: weight decay pulls the singular values to 0 and RAT to 1, got weight_decay="
                f"{decay:g}; write train.weight_decay: 0 (TrainOptions(weight_decay=0))."
            )

    def constrain(self, model: nn.Module, progress: float, generator: torch.Generator) -> None:
        """Retract every weight matrix and project every residual join, in place."""
        if self.beta == 0:
            return
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                rows = module.weight.flatten(1)
                module.weight.copy_(retract(rows, self.beta).view_as(module.weight))
            elif isinstance(module, nn.Linear) and module.out_features < _WIDE:
                module.weight.copy_(retract(module.weight, self.beta))
            elif isinstance(module, nn.Linear):
                order = torch.randperm(module.out_features, generator=generator)
                chosen = order[: math.floor(_SHARE * module.out_features)]
                chosen = chosen.to(module.weight.device)
                module.weight[chosen] = retract(module.weight[chosen], self.beta)
            elif isinstance(module, ConvexCombination):
                module.coefficients.copy_(project_simplex(module.coefficients))


def retract(weight: Tensor, beta: float) -> Tensor:
    """Return (1 + beta) W - beta W W^T W for a matrix W."""
    # multi_dot chooses the cheaper of the two orders.
    cubed: Tensor = torch.linalg.multi_dot([weight, weight.T, weight])
    return (1 + beta) * weight - beta * cubed


def project_simplex(point: Tensor) -> Tensor:
    """Return the point p of the simplex (p >= 0, sum 1) that is nearest to a vector x.

    p = max(x - theta, 0), with theta such that the entries sum to 1.

    Source: Duchi et al., "Efficient projections onto the l1-ball", ICML 2008.
    """
    descending = point.sort(descending=True).values
    count = torch.arange(1, len(point) + 1, device=point.device)
    theta = (descending.cumsum(0) - 1) / count
    last = (descending > theta).sum().view(1) - 1
    return (point - theta.gather(0, last)).clamp_min(0)
