"""Mixup of losses: a weighted sum of the cross-entropy on the clean and the perturbed batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spikeguard.defences.piece import Piece

__all__ = ["Mixup"]


@dataclass(frozen=True)
class Mixup(Piece):
    r"""Mix the cross-entropy of the clean batch with that of the perturbed batch.

    .. math::
        L_{task} = \chi\,CE(f(x), y) + (1 - \chi)\,CE(f(\tilde x), y)

    The paper calls this a mixup strategy. It mixes losses, not images; the mixup of Zhang et al.
    blends images. Both batches run in training mode, the clean one first, and both update the batch
    normalisation statistics, as in the public code.

    Args:
        chi: Weight of the clean batch, in [0, 1]. 0 gives the same weights as the perturbation
            alone, bit for bit: the clean batch is not run. With 1 the perturbed batch still runs,
            but its cross-entropy has weight 0.

    Raises:
        ValueError: If chi is outside [0, 1]; before training, if no piece perturbs.

    Source: Ding et al., "Robust stable spiking neural networks", ICML 2024, Eq. 16.
    """

    name: ClassVar[str] = "mixup"
    needs_perturbed: ClassVar[bool] = True

    chi: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.chi <= 1:
            raise ValueError(
                f"Mixup: chi is the clean batch's share of the loss, in [0, 1], got {self.chi:g}."
            )

    @property
    def clean_share(self) -> float:
        """Share of the cross-entropy taken on the clean batch: chi."""
        return self.chi
