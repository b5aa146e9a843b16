"""Label smoothing: the cross-entropy against labels that give every class a small share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from spikeguard.defences.piece import Piece

__all__ = ["LabelSmoothing"]


@dataclass(frozen=True)
class LabelSmoothing(Piece):
    r"""Cross-entropy against labels of which a share is spread evenly over all classes.

    .. math:: L = -\sum_k q_k \log p_k, \qquad q_k = (1 - s)\,[k = y] + \frac{s}{K}

    p is the softmax of the logits. The loss replaces every cross-entropy of the objective, on clean
    and on perturbed images. The search for perturbed images still maximises its own loss, with
    plain labels. Penalties, such as the divergence of TRADES, are unchanged.

    Args:
        smoothing: The share s, in [0, 1); 0 gives the same weights as without the piece, bit for
            bit.

    Raises:
        ValueError: If the share is outside [0, 1).

    Source: Szegedy et al., 2016 (arXiv:1512.00567); in adversarial training Pang et al.,
        "Bag of tricks for adversarial training", ICLR 2021 (arXiv:2010.00467).
    """

    name: ClassVar[str] = "label_smoothing"

    smoothing: float = 0.1

    @classmethod
    def off(cls) -> LabelSmoothing:
        """Return an instance without effect, for the contract tests."""
        return cls(smoothing=0.0)

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(
                f"LabelSmoothing: smoothing is a share in [0, 1), got {self.smoothing:g}."
            )

    def fit(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy of logits [B, K] against the smoothed labels of y [B]."""
        return functional.cross_entropy(logits, y, label_smoothing=self.smoothing)
