"""Nearest: the points of lowest margin that the searches of a block have seen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Nearest"]


@dataclass
class Nearest:
    """For each sample the point of lowest margin that the searches have seen so far.

    Attributes:
        points: The points [N, ...].
        margin: Logit of the true class minus the largest other one at that point [N], on the CPU;
            infinite where nothing was seen.
        fooled_at: CPU time of the process, in seconds, when a point of negative margin was last
            seen [N], on the CPU; infinite where none was.
    """

    points: Tensor
    margin: Tensor
    fooled_at: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.fooled_at = torch.full((len(self.margin),), torch.inf, dtype=torch.float64)

    @classmethod
    def of(cls, x: Tensor) -> Nearest:
        """Return a record of nothing seen."""
        return cls(x.clone(), torch.full((len(x),), torch.inf))

    def see(self, rows: Tensor, points: Tensor, margin: Tensor) -> None:
        """Record points [B, ...] of samples (indices [B] on the CPU) with their margins [B].

        A point of negative margin fools the model here, so that the judge decides about it; it is
        no point to climb from, even if the judge rejects it.
        """
        margin = margin.detach().to("cpu", self.margin.dtype)
        self.fooled_at[rows[margin < 0]] = time.process_time()
        lower = (margin < self.margin[rows]) & (margin >= 0)
        if bool(lower.any()):
            self.margin[rows[lower]] = margin[lower]
            self.points[rows[lower]] = points[lower.to(points.device)]
