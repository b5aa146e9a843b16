"""Mixup of losses: train on the clean and on the perturbed batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spikeguard.defences.piece import Piece

__all__ = ["Mixup"]


@dataclass(frozen=True)
class Mixup(Piece):
    r"""Take a share chi of the cross-entropy on the clean batch.

    .. math::
        L_{task} = \chi\,CE(f(x), y) + (1 - \chi)\,CE(f(\tilde x), y)

    The paper calls this a mixup strategy. It mixes losses, not images: the images that Zhang et
    al.'s mixup blends stay apart here. Both batches run in training mode, the clean one first, and
    both move the statistics of a batch normalisation, as in the public code.

    Args:
        chi: Share of the clean batch, in [0, 1]. 0 is the perturbation alone, to the bit: the clean
            batch is not run. With 1 the perturbed batch still runs, but no longer trains the
            weights by its cross-entropy.

    Raises:
        ValueError: If chi is outside [0, 1]; before the training, if nothing perturbs.

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
