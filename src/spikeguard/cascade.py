"""A cascade: attacks in order, each on the samples that the attacks before it left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Cascade", "run_cascade"]

Hunt = Callable[[str, Tensor], tuple[Tensor, Tensor]]
Rescore = Callable[[str, Tensor, Tensor], Tensor]


@dataclass
class Cascade:
    """What a cascade found; a name's entry speaks of this attack and all before it.

    Attributes:
        right: For each attack the share of right answers that is left [N].
        worst: The inputs that the last attack's shares speak of, shaped like the inputs.
        points: For each attack the inputs it met or left, where they were kept.
        seconds: Time spent in each attack.
    """

    worst: Tensor
    right: dict[str, Tensor] = field(default_factory=dict)
    points: dict[str, Tensor] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run_cascade(
    names: Sequence[str],
    x: Tensor,
    clean: Tensor,
    *,
    hunt: Hunt,
    rescore: Rescore | None = None,
    keep_points: bool = False,
) -> Cascade:
    """Attack samples until nothing of them is right, or no attack is left.

    Args:
        names: The attacks, in the order in which they run.
        x: Inputs [N, ...].
        clean: Share of right answers without an attack [N], on the CPU; 0 is not attacked at all.
        hunt: ``(name, rows) -> (points, shares)`` attacks the samples at these places.
        rescore: ``(name, points, rows) -> shares`` on other noise draws, for a stochastic model:
            which attack is a sample's worst is chosen by noisy shares, so that they are too low.
        keep_points: Keep the inputs that each attack ends with.
    """
    found = Cascade(x.clone())
    lowest, worst = clean.clone(), found.worst
    holds, stale = clean.clone(), torch.full_like(clean, rescore is not None, dtype=torch.bool)
    for name in names:
        began = time.monotonic()
        rows = lowest.nonzero()[:, 0]
        tried = worst.clone() if keep_points else worst
        if len(rows):
            points, shares = hunt(name, rows)
            if keep_points:
                tried[rows.to(x.device)] = points
            lower = shares < lowest[rows]
            lowest[rows[lower]] = shares[lower]
            worst[rows[lower].to(x.device)] = points[lower.to(x.device)]
            stale[rows[lower]] = True
        if rescore is None:
            holds = lowest
        elif stale.any():
            rows = stale.nonzero()[:, 0]
            holds[rows] = rescore(name, worst[rows.to(x.device)], rows)
            stale[:] = False
        found.right[name] = holds.clone()
        found.seconds[name] = time.monotonic() - began
        if keep_points:
            found.points[name] = tried
    return found
