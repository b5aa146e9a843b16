"""RAT: after each step the weight matrices are drawn towards orthonormal rows (Parseval)."""

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
_WIDE = 200  # a linear layer with so many outputs is retracted in part at each step,
_SHARE = 0.3  # namely in this share of its rows


@dataclass(frozen=True)
class RAT(Piece):
    r"""Regularised training: a retraction that bounds how far a layer stretches a perturbation.

    .. math:: W \leftarrow (1 + \beta)\,W - \beta\,W W^T W, \qquad
              \sigma_i \leftarrow \sigma_i + \beta\,(\sigma_i - \sigma_i^3)

    after every optimiser step, for each convolution (its weight as a matrix of out x in k k) and
    each linear layer, the last one included. Singular values move towards 1 and orthonormal rows
    stay what they are. A linear layer with 200 outputs or more is retracted in a fresh random 30 %
    of its rows, as a matrix of their own. The pair of every ConvexCombination is then projected on
    the simplex (c >= 0, sum 1), so that a residual join stretches no more than its branches.

    ``RAT`` is the constraint alone; the adversarial half of the method is ``AT``:
    ``AT(eps=2 / 255, steps=2, step_size=1 / 255) | RAT()``.

    Args:
        beta: Strength of the retraction, in [0, 1); 0 is plain training (no projection either). It
            is not multiplied by the learning rate, so its share of a step grows as that falls.

    Raises:
        ValueError: If beta is out of range; in training, if weight decay is on.

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
                f"RAT: beta is a strength in [0, 1), got {self.beta:g}; published are 0.0005 to "
                "0.004."
            )

    @classmethod
    def preset(cls, dataset: str, network: str) -> Self:
        """Return the published strength for "cifar10" or "cifar100", "vgg11" or "wrn16_4"."""
        if (dataset, network) not in _PRESETS:
            known = ", ".join(" ".join(names) for names in _PRESETS)
            raise ValueError(f"RAT: presets are {known}; got {dataset} {network}.")
        return cls(beta=_PRESETS[dataset, network])

    def require(self, model: nn.Module, options: object) -> None:
        """Refuse weight decay: it pulls the singular values to 0 that RAT holds at 1."""
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
    cubed: Tensor = torch.linalg.multi_dot(
        [weight, weight.T, weight]
    )  # in the cheaper of the two orders
    return (1 + beta) * weight - beta * cubed


def project_simplex(point: Tensor) -> Tensor:
    """Return the nearest point p of the simplex (p >= 0, sum 1) to a vector.

    It is max(x - theta, 0) with the theta at which the entries sum to 1.

    Source: Duchi et al., "Efficient projections onto the l1-ball", ICML 2008.
    """
    descending = point.sort(descending=True).values
    count = torch.arange(1, len(point) + 1, device=point.device)
    theta = (descending.cumsum(0) - 1) / count
    last = (descending > theta).sum().view(1) - 1
    return (point - theta.gather(0, last)).clamp_min(0)
