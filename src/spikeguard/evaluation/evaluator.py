"""evaluate(): clean accuracy, accuracy under every attack, and the per-sample worst case.

Sample i draws from streams named by the seed, the attack and i, so that its outcome depends neither
on the batch size nor on its neighbours. An evaluation that is killed goes on at the next part: a
batch, or, in a cascade, the next attack on several batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.plan import plan_evaluation
from spikeguard.evaluation.progress import Progress
from spikeguard.evaluation.result import Evaluation, WorstSet
from spikeguard.evaluation.shard_runner import Precision

__all__ = ["evaluate"]


def evaluate(
    model: nn.Module,
    data: ImageSet | tuple[Tensor, Tensor],
    attacks: Mapping[str, Attack],
    *,
    seed: int = 0,
    limit: int | None = None,
    batch_size: int = 128,
    draws: int | None = None,
    out: str | Path | None = None,
    keep_adversarial: bool = False,
    cascade: bool = False,
    precision: Precision = "32",
    progress: Progress | None = None,
) -> Evaluation:
    """Attack a model and count what survives.

    The model is evaluated in evaluation mode and left as it was. A deterministic model's sample
    that is wrong without an attack counts as wrong under every attack and is not attacked. A
    stochastic model's adversarial inputs are scored on fresh draws; its per-sample worst case is
    the attack with the fewest right draws, scored once more on new draws, because the minimum of
    noisy counts is biased. Where that choice, misled by noise, does worse than one attack for all
    samples, the worst case is that attack.

    A cascade is the cheap way to the worst case, and to nothing else: attacks run from cheap to
    dear, and a sample that one has fooled meets no other. An attack's outcome is then what still
    holds after it and all cheaper ones. A stochastic model's sample leaves only when it was wrong
    on every draw; its outcomes are scored on draws that chose nothing.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``.
        data: An ImageSet or a pair (x, y).
        attacks: ``{name: attack}``, all with the same threat set, for example from ``suite``.
        seed: Names the random streams of the attacks and of the scores.
        limit: Use at most the first so many samples, >= 1.
        batch_size: Samples at once; results do not depend on it.
        draws: Noise draws every input is scored on; None is 10 for a stochastic model, else 1.
        out: A folder; finished batches are kept in it until the result is saved, so that a killed
            evaluation goes on when it is called again with the same arguments.
        keep_adversarial: Keep the adversarial inputs of every attack in the result, beside those of
            the worst case, which always are.
        cascade: Attack only what cheaper attacks left, and stop searching where one succeeds.
        precision: Precision of the attacks' passes: "32", or "bf16" for bfloat16 autocast. Scores
            are taken in float32 either way.
        progress: Called with (done, total, what): gradients made, and with those that are left at
            most; the total falls where attacks succeed.

    Raises:
        ValueError: If an argument is out of range, or ``out`` holds parts of another evaluation.
        ThreatViolation: If an attack leaves its threat set.
        AttackError: If weights, logits or gradients are not finite, or there is no gradient.
    """
    layout = plan_evaluation(
        *(model, data, attacks),
        seed=seed,
        limit=limit,
        batch_size=batch_size,
        draws=draws,
        out=out,
        keep_adversarial=keep_adversarial,
        cascade=cascade,
        precision=precision,
    )
    meter = layout.meter(progress, layout.samples)
    parts = [layout.part(start, meter) for start in layout.starts]
    meter.finish()
    job, n = layout.job, layout.samples
    attacks = job.attacks
    merged = {name: torch.from_numpy(np.concatenate([p[name] for p in parts])) for name in parts[0]}
    outcomes = {name: merged[f"right:{name}"] for name in ("clean", *attacks, "worst_case")}
    chosen = outcomes["worst_case"]
    single = min(("clean", *attacks), key=lambda name: float(outcomes[name].mean()))
    if outcomes[single].mean() < outcomes["worst_case"].mean():
        outcomes["worst_case"] = outcomes[single].clone()
    return Evaluation(
        outcomes=outcomes,
        labels=torch.as_tensor(layout.images.labels)[:n],
        index=torch.arange(n),
        settings=layout.settings,
        seconds={name: float(merged[f"seconds:{name}"].sum()) for name in attacks},
        threat=layout.threat,
        zero_gradient=float(merged["zero_gradient"].double().mean()),
        stochastic=job.stochastic,
        draws=job.draws,
        seed=seed,
        adversarial={name: merged[f"x:{name}"] for name in attacks} if keep_adversarial else {},
        worst=WorstSet(merged["worst_x"], float(chosen.mean())),
        cascade=cascade,
        precision=precision,
    )
