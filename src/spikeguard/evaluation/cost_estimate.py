"""estimate(): an upper bound on the time of an evaluation, before it starts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from torch import nn

from spikeguard.attacks.base import FORWARD, Attack, AttackError, cost
from spikeguard.attacks.model_access import DEFAULT_DRAWS, is_stochastic
from spikeguard.attacks.timing import gradient_seconds
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.progress import ProgressMeter
from spikeguard.system.durations import duration
from spikeguard.system.processes import one_thread

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """Upper bound on the cost of an evaluation: fooled samples cost less, in a cascade much less.

    Attributes:
        samples: Number of samples.
        gradients: Gradient evaluations for one sample that resists all attacks, with its scores.
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
    draws: int | None = None,
    jobs: int = 1,
) -> Estimate:
    """Count the gradients of an evaluation in which all samples resist, and time one of a batch.

    They are the costs that the attacks declare, the passes that score every input, the clean one
    too, and the gradients that are tested for being zero; a forward pass counts a third. Attacks on
    a noisy model are taken to average their gradients, as those of the suites do. The last round of
    a converging search may exceed its budget, and its scores of a noisy model are not counted.

    The timed gradient is backpropagation; gradients of ASSG and PDSG take about four times as long.

    Args:
        model: The classifier; left unchanged.
        data: The images.
        attacks: ``{name: attack}``, as for ``evaluate``.
        limit: Use only the first ``limit`` images.
        batch_size: Images at once.
        draws: Noise draws of every score; None is the default of ``evaluate``.
        jobs: Number of processes of one thread each.
    """
    n = len(data) if limit is None else min(limit, len(data))
    stochastic = is_stochastic(model)
    if draws is None:
        draws = DEFAULT_DRAWS if stochastic else 1
    gradients = math.inf
    if all(math.isfinite(cost(attack)) for attack in attacks.values()):
        gradients = ProgressMeter(None, attacks, n, draws, draws if stochastic else 0).left / n
    if stochastic:  # searches of one attack are compared on as many draws
        rounds = [getattr(attack, "rounds", 1) for attack in attacks.values()]
        gradients += sum(each for each in rounds if each > 1) * DEFAULT_DRAWS * FORWARD
    x, y = data.batch(slice(min(n, batch_size)))
    alone = one_thread() if jobs > 1 else nullcontext()
    with alone:
        try:
            took = gradient_seconds(model, x, y)
        except AttackError:  # the evaluation reports it
            return Estimate(n, gradients, math.inf)
    at_once = min(jobs, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else jobs)
    return Estimate(n, gradients, gradients * took * n / len(x) / at_once)
