"""A cascade: attacks in order, each on the samples that the attacks before it left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Cascade", "run_cascade"]

AttackSamples = Callable[[str, Tensor], tuple[Tensor, Tensor]]
Rescore = Callable[[str, Tensor, Tensor], Tensor]


@dataclass
class Cascade:
    """What a cascade found; a name's entry speaks of this attack and all before it.

    Attributes:
        worst: The inputs that the last attack's shares speak of, shaped like the inputs.
        lowest: The lowest share of right answers that a search has seen of each sample [N].
        holds: The share of right answers on ``worst`` [N].
        right: For each attack the share of right answers that is left [N].
        points: For each attack the inputs it met or left, where they were kept.
        seconds: Time spent in each attack.
    """

    worst: Tensor
    lowest: Tensor
    holds: Tensor
    right: dict[str, Tensor] = field(default_factory=dict)
    points: dict[str, Tensor] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return all of it as arrays, for a file."""
        own = {"worst": self.worst, "lowest": self.lowest, "holds": self.holds}
        kinds = {"right": self.right, "points": self.points}
        named = {f"{k}:{name}": part for k, parts in kinds.items() for name, part in parts.items()}
        arrays = {name: part.cpu().numpy() for name, part in (own | named).items()}
        return arrays | {f"seconds:{n}": np.array(took) for n, took in self.seconds.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray[Any, Any]], device: torch.device) -> Cascade:
        """Read what :meth:`arrays` wrote; the inputs go to a device."""
        found = {name: torch.from_numpy(array) for name, array in arrays.items()}

        def named(kind: str) -> dict[str, Tensor]:
            return {n.partition(":")[2]: v for n, v in found.items() if n.startswith(f"{kind}:")}

        return cls(
            found["worst"].to(device),
            found["lowest"],
            found["holds"],
            named("right"),
            {name: points.to(device) for name, points in named("points").items()},
            {name: float(took) for name, took in named("seconds").items()},
        )


def run_cascade(
    names: Sequence[str],
    x: Tensor,
    clean: Tensor,
    *,
    attack_samples: AttackSamples,
    rescore: Rescore | None = None,
    keep_points: bool = False,
    resume_from: Cascade | None = None,
    on_progress: Callable[[Cascade], None] | None = None,
) -> Cascade:
    """Attack samples until nothing of them is right, or no attack is left.

    Args:
        names: The attacks, in the order in which they run.
        x: Inputs [N, ...].
        clean: Share of right answers without an attack [N], on the CPU; 0 is not attacked at all.
        attack_samples: ``(name, rows) -> (points, shares)`` attacks the samples at these places.
        rescore: ``(name, points, rows) -> shares`` on other noise draws, for a stochastic model:
            which attack is a sample's worst is chosen by noisy shares, so that they are too low.
        keep_points: Keep the inputs that each attack ends with.
        resume_from: What an interrupted cascade of the same attacks left; it goes on there.
        on_progress: Told what is found after each attack, to on_progress it.
    """
    found = (
        resume_from if resume_from is not None else Cascade(x.clone(), clean.clone(), clean.clone())
    )
    lowest, worst = found.lowest, found.worst
    stale = torch.full_like(clean, rescore is not None and resume_from is None, dtype=torch.bool)
    for name in names:
        if name in found.right:
            continue
        began = time.monotonic()
        rows = lowest.nonzero()[:, 0]
        tried = worst.clone() if keep_points else worst
        if len(rows):
            points, shares = attack_samples(name, rows)
            if keep_points:
                tried[rows.to(x.device)] = points
            lower = shares < lowest[rows]
            lowest[rows[lower]] = shares[lower]
            worst[rows[lower].to(x.device)] = points[lower.to(x.device)]
            stale[rows[lower]] = True
        if rescore is None:
            found.holds = lowest
        elif stale.any():
            rows = stale.nonzero()[:, 0]
            found.holds[rows] = rescore(name, worst[rows.to(x.device)], rows)
            stale[:] = False
        found.right[name] = found.holds.clone()
        found.seconds[name] = time.monotonic() - began
        if keep_points:
            found.points[name] = tried
        if on_progress is not None:
            on_progress(found)
    return found
