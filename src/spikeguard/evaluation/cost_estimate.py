"""estimate(): an upper bound on the time of an evaluation, before it starts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from torch import nn

from spikeguard.attacks.base import Attack, AttackError, cost
from spikeguard.attacks.timing import gradient_seconds
from spikeguard.data.images import ImageSet
from spikeguard.system.durations import duration
from spikeguard.system.processes import one_thread

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """Upper bound on the cost of an evaluation: fooled samples cost less, in a cascade much less.

    Attributes:
        samples: Number of samples.
        gradients: Gradient evaluations for one sample that resists all attacks.
        seconds: Time for all samples if all resist, on this machine under its present load.
    """

    samples: int
    gradients: float
    seconds: float

    def __str__(self) -> str:
        if not math.isfinite(self.seconds):
            return f"{self.samples} images; the cost of an attack is unknown"
        return (
            f"{self.samples} images, at most {self.gradients:,.0f} gradients each: "
            f"about {duration(self.seconds)} if all resist, less where attacks succeed"
        )


def estimate(
    model: nn.Module,
    data: ImageSet,
    attacks: Mapping[str, Attack],
    *,
    limit: int | None = None,
    batch_size: int = 128,
    jobs: int = 1,
) -> Estimate:
    """Sum the costs that the attacks declare, and time one gradient of one batch.

    The timed gradient is backpropagation; gradients of ASSG and PDSG take about four times as long.

    Args:
        model: The classifier; left unchanged.
        data: The images.
        attacks: ``{name: attack}``, as for ``evaluate``.
        limit: Use only the first ``limit`` images.
        batch_size: Images at once.
        jobs: Number of processes of one thread each.
    """
    n = len(data) if limit is None else min(limit, len(data))
    gradients = sum(cost(attack) for attack in attacks.values())
    x, y = data.batch(slice(min(n, batch_size)))
    alone = one_thread() if jobs > 1 else nullcontext()
    with alone:
        try:
            took = gradient_seconds(model, x, y)
        except AttackError:  # the evaluation reports it
            return Estimate(n, gradients, math.inf)
    at_once = min(jobs, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else jobs)
    return Estimate(n, gradients, gradients * took * n / len(x) / at_once)
