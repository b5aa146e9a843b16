"""SearchState: what a converging search has found and spent so far, as arrays for a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeguard.attacks.searches.nearest import Nearest

__all__ = ["Round", "SearchState"]

_TENSORS = ("points", "right", "near", "margin", "lowest", "fell")


@dataclass(frozen=True)
class Round:
    """One use of a search.

    Attributes:
        search: Its name.
        cost: Gradients per sample left before this round, on average, if none of them falls in it.
        spent: The sum over all rounds so far.
        gradients: Gradients of all samples together in this round; a forward pass counts a third.
        fooled: Samples fooled in this round; with noise, the fall of the summed shares.
        left: What is left after it: samples, or the sum of the shares of correct draws.
        cpu_s: CPU seconds of this round.
    """

    search: str
    cost: float
    spent: float
    gradients: float
    fooled: float
    left: float
    cpu_s: float


@dataclass
class SearchState:
    """State of a converging search on a block of samples, complete enough to resume it.

    Attributes:
        points: The worst input of each sample so far [N, ...].
        right: Share of correct draws on it [N], on the CPU; 0 is fooled.
        nearest: Points of lowest margin since the sample's last climb.
        lowest: Lowest margin of each sample that any search has seen [N], on the CPU; infinite
            where none looked.
        start: The sum of the shares before the first round.
        fell: CPU seconds of the search after which each sample was fooled [N], on the CPU; infinite
            where it was not.
        rounds: What was run so far.
        ended: The rule that ended the search; empty while it runs.
    """

    points: Tensor
    right: Tensor
    nearest: Nearest
    lowest: Tensor
    start: float
    fell: Tensor
    rounds: list[Round] = field(default_factory=list)
    ended: str = ""

    @classmethod
    def of(cls, x: Tensor, right: Tensor) -> SearchState:
        """Return the state before the first round."""
        never = torch.full((len(x),), torch.inf, dtype=torch.float64)
        lowest = torch.full((len(x),), torch.inf)
        return cls(x.clone(), right.clone(), Nearest.of(x), lowest, float(right.sum()), never)

    @property
    def spent(self) -> float:
        """Gradients per sample left, on average; see ``Round.spent``."""
        return self.rounds[-1].spent if self.rounds else 0.0

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all rounds."""
        return sum(each.cpu_s for each in self.rounds)

    @property
    def left(self) -> float:
        """The sum of the shares after the last round."""
        return self.rounds[-1].left if self.rounds else self.start

    def see(self, rows: Tensor, points: Tensor, margin: Tensor) -> None:
        """Record points [B, ...] of samples (indices [B] on the CPU) with their margins [B]."""
        self.nearest.see(rows, points, margin)
        self.lowest[rows] = torch.minimum(self.lowest[rows], margin.to(self.lowest))

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the state as arrays, for a file."""
        searches, *numbers = zip(*map(astuple, self.rounds), strict=True) if self.rounds else [()]
        return {
            "points": self.points.cpu().numpy(),
            "right": self.right.numpy(),
            "near": self.nearest.points.cpu().numpy(),
            "margin": self.nearest.margin.numpy(),
            "lowest": self.lowest.numpy(),
            "start": np.array(self.start),
            "fell": self.fell.numpy(),
            "searches": np.array(searches, dtype=np.str_),
            "numbers": np.array(numbers, dtype=np.float64),
            "ended": np.array(self.ended),
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray[Any, Any]], device: torch.device
    ) -> SearchState:
        """Rebuild a state from the result of :meth:`arrays`."""
        kept = {n: torch.from_numpy(arrays[n]) for n in _TENSORS}
        return cls(
            kept["points"].to(device),
            kept["right"],
            Nearest(kept["near"].to(device), kept["margin"]),
            kept["lowest"],
            float(arrays["start"]),
            kept["fell"],
            [
                Round(str(search), *numbers)
                for search, numbers in zip(
                    arrays["searches"], arrays["numbers"].T.tolist(), strict=True
                )
            ],
            str(arrays["ended"]),
        )
