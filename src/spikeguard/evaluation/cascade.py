"""Cascade: attacks in order, each on the samples that survived the previous ones."""

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
Rescore = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Cascade:
    """State of a cascade; an entry for an attack covers this attack and all before it.

    Attributes:
        worst: Current worst-case inputs, shaped like the inputs.
        lowest: Share of correct draws on ``worst``, on the draws that chose it [N].
        holds: Share of correct draws on ``worst``, on the draws that are reported [N].
        right: For each attack the reported share of correct draws after it [N].
        points: For each attack the inputs after it, where they are stored.
        seconds: Time spent in each attack.
        records: What attacks found out about samples besides, see ``SampleRecords``.
    """

    worst: Tensor
    lowest: Tensor
    holds: Tensor
    right: dict[str, Tensor] = field(default_factory=dict)
    points: dict[str, Tensor] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    records: dict[str, Tensor] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the state as arrays, for a file."""
        single = {"worst": self.worst, "lowest": self.lowest, "holds": self.holds}
        kinds = {"right": self.right, "points": self.points, "records": self.records}
        named = {f"{k}:{name}": each for k, group in kinds.items() for name, each in group.items()}
        arrays = {name: tensor.cpu().numpy() for name, tensor in (single | named).items()}
        return arrays | {f"seconds:{n}": np.array(took) for n, took in self.seconds.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray[Any, Any]], device: torch.device) -> Cascade:
        """Rebuild a state from the result of :meth:`arrays`; the inputs are moved to a device."""
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
            named("records"),
        )


def run_cascade(
    names: Sequence[str],
    x: Tensor,
    clean: Tensor,
    reported: Tensor,
    *,
    attack_samples: AttackSamples,
    rescore: Rescore | None = None,
    keep_points: bool = False,
    resume_from: Cascade | None = None,
    records: dict[str, Tensor] | None = None,
    on_progress: Callable[[Cascade], None] | None = None,
) -> Cascade:
    """Run attacks until no sample is classified correctly, or no attack is left.

    Args:
        names: The attacks, in the order in which they run.
        x: Inputs [N, ...].
        clean: Share of correct draws without an attack [N], on the CPU; samples at 0 are skipped.
        reported: The same on the draws that are reported; ``clean`` without noise.
        attack_samples: ``(name, rows) -> (points, shares)`` attacks the samples at these rows.
        rescore: ``(points, rows) -> shares`` on the draws that are reported, for a stochastic
            model. The shares that choose a sample's worst input are too low.
        keep_points: Store the inputs after each attack.
        resume_from: State of an interrupted cascade of the same attacks.
        records: Filled by ``attack_samples``; they become part of the state.
        on_progress: Called with the cascade state after each attack, to save it.
    """
    found = (
        resume_from
        if resume_from is not None
        else Cascade(x.clone(), clean.clone(), reported.clone())
    )
    found.records = found.records if records is None else records
    lowest, worst = found.lowest, found.worst
    for name in names:
        if name in found.right:
            continue
        started = time.monotonic()
        rows = lowest.nonzero()[:, 0]
        if len(rows):
            points, shares = attack_samples(name, rows)
            lower = shares < lowest[rows]
            lowest[rows[lower]] = shares[lower]
            worst[rows[lower].to(x.device)] = points[lower.to(x.device)]
            if rescore is not None and lower.any():
                found.holds[rows[lower]] = rescore(points[lower.to(x.device)], rows[lower])
        if rescore is None:
            found.holds = lowest
        found.right[name] = found.holds.clone()
        found.seconds[name] = time.monotonic() - started
        if keep_points:
            found.points[name] = worst.clone()
        if on_progress is not None:
            on_progress(found)
    return found
