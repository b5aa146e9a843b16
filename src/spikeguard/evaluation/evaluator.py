"""evaluate(): clean accuracy, accuracy under every attack, and the per-sample worst case.

Sample i draws from streams named by the seed, the attack and i: its outcome depends neither on the
batch size nor on the other samples. A killed evaluation continues at the next shard: a batch, or,
in a cascade, at the next attack on several batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.activity import activity_cost
from spikeguard.evaluation.attack_records import summed
from spikeguard.evaluation.checked_plan import checked_plan
from spikeguard.evaluation.options import EvaluationOptions, Precision
from spikeguard.evaluation.plan import EvaluationPlan, plan_evaluation
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.result_files import WorstSet
from spikeguard.evaluation.search_record import merged_record
from spikeguard.evaluation.worst_case import lowest, never_rising
from spikeguard.preflight.quick import warn
from spikeguard.system.progress import Progress, ProgressCallback
from spikeguard.system.progress_bar import shown_progress

__all__ = ["evaluate", "run_plan"]


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
    check: bool = True,
    progress: Progress = "auto",
) -> Evaluation:
    """Attack a model and score the adversarial inputs.

    The model runs in evaluation mode and is left unchanged. A deterministic model's sample that is
    misclassified without an attack counts as wrong under every attack and is not attacked. A
    stochastic model's adversarial inputs are scored on two sets of noise draws that no search has
    seen: one chooses each sample's worst input, the other gives all numbers of the result, because
    the minimum of noisy counts is biased. Where noise makes that choice worse than one single
    attack for all samples, or than the choice among fewer attacks, that is the worst case: one more
    attack never raises it.

    A cascade computes only the worst case, in less time: attacks run from cheap to expensive, and
    each skips the samples that an earlier attack has fooled. An attack's outcome is then the
    accuracy after this attack and all cheaper ones, and never above that of the attack before. A
    stochastic model's sample is skipped only when it was wrong on every draw of the choice.

    A model that gives other logits in a second call or in another batch is rejected after a few
    forward passes; see :func:`~spikeguard.preflight.quick.quick_check`. Nothing is written then.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``.
        data: An ImageSet or a pair (x, y).
        attacks: ``{name: attack}``, all with the same threat set, for example from ``suite``.
        seed: Names the random streams; this and the next seven arguments are the fields of
            :class:`~spikeguard.evaluation.EvaluationOptions`.
        limit: Use only the first ``limit`` samples, >= 1; None uses all.
        batch_size: Samples at once, >= 1; results do not depend on it.
        draws: Noise draws of every score, >= 1; None is 10 for a stochastic model, else 1.
        out: Folder for finished shards, from which a killed evaluation continues; None stores
            nothing.
        keep_adversarial: Store the inputs of every attack, beside those of the worst case.
        cascade: Run attacks from cheap to expensive, each on the samples that survived.
        precision: "32" or "bf16", the precision of the attacks' passes; scores are float32.
        check: Whether to check the model first. A suspicion is a ``PreflightWarning``, and so is a
            clean accuracy no better than guessing. The result does not depend on it.
        progress: "auto" shows a bar on standard error if that is a terminal; or a callback ``(done,
            total, what)``, or None. It counts gradients; the total is an upper bound that falls as
            attacks succeed.

    Raises:
        ValueError: If an argument is out of range, ``out`` holds shards of another evaluation, or
            the model fails the check.
        ThreatViolation: If an attack leaves its threat set.
        AttackError: If weights, logits or gradients are not finite, or there is no gradient.
    """
    options = EvaluationOptions(
        seed, limit, batch_size, draws, out, keep_adversarial, cascade, precision
    )
    plan = checked_plan if check else plan_evaluation
    with shown_progress(progress, "attack") as update:
        found = run_plan(plan(model, data, attacks, options), update)
    if check:
        warn(filter(None, [found.warning]))
    return found


def run_plan(plan: EvaluationPlan, progress: ProgressCallback | None = None) -> Evaluation:
    """Run the shards of a plan, or read those that are stored, and merge them into one result."""
    meter = plan.meter(progress, plan.samples)
    shards = [plan.shard(start, meter) for start in plan.starts]
    meter.finish()
    runner, n = plan.runner, plan.samples
    options, attacks = runner.options, runner.attacks
    merged = {
        name: torch.from_numpy(np.concatenate([s[name] for s in shards]))
        for name in shards[0]
        if name not in ("search", "classes")
    }
    classes = {int(number) for s in shards for number in s.get("classes", ())}
    texts = [text for s in shards if "search" in s for text in s["search"].tolist()]
    outcomes = {name: merged[f"right:{name}"] for name in ("clean", *attacks)}
    per_sample = merged["right:worst_case"]
    if options.cascade:
        outcomes = never_rising(outcomes)
    after = [merged[name] for name in merged if name.startswith("after:")]
    outcomes["worst_case"] = lowest([per_sample, *after, *outcomes.values()]).clone()
    records = {n.partition(":")[2]: merged[n] for n in merged if n.startswith("record:")}
    kept = attacks if options.keep_adversarial else ()
    return Evaluation(
        outcomes=outcomes,
        labels=torch.as_tensor(plan.images.labels)[:n],
        index=torch.arange(n),
        settings=plan.settings,
        seconds={name: float(merged[f"seconds:{name}"].sum()) for name in attacks},
        threat=plan.threat,
        zero_gradient=float(merged["zero_gradient"].double().mean()),
        zero=merged["zero_gradient"],
        stochastic=runner.stochastic,
        draws=runner.scorer.draws,
        seed=options.seed,
        adversarial={name: merged[f"x:{name}"] for name in kept},
        worst=WorstSet(merged["worst_x"], float(per_sample.mean())),
        cascade=options.cascade,
        precision=options.precision,
        records=summed(records),
        search=merged_record(texts, runner.stochastic) if texts else None,
        activity=activity_cost(
            runner.model, plan.images, n=n, seed=options.seed, batch_size=runner.batch_size
        ),
        classes=max(classes, default=None),
    )
