"""evaluate(): clean accuracy, accuracy under every attack, and the per-sample worst case.

Sample i draws from streams named by the seed, the attack and i, so that its outcome depends neither
on the batch size nor on its neighbours. An evaluation that is killed goes on at the next part: a
batch, or, in a cascade, the next attack on several batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks import Attack, cost, describe, evaluating, require_finite_weights
from spikeguard.attacks.base import is_stochastic
from spikeguard.data import ImageSet, as_image_set
from spikeguard.files import write_npz
from spikeguard.metering import Meter, Progress
from spikeguard.outcomes import Job, Precision, begun
from spikeguard.parts import open_parts, read_part
from spikeguard.scores import RESERVED, Evaluation, Score, WorstSet, wilson

__all__ = ["Evaluation", "Score", "evaluate", "wilson"]

CHUNK = 8  # batches in a part of a cascade: a queue from which batches are filled up


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
    images = as_image_set(data)
    require_finite_weights(model)
    if limit is not None and limit < 1:
        raise ValueError(f"evaluate: limit counts samples, >= 1, got {limit}.")
    if batch_size < 1 or (draws is not None and draws < 1):
        raise ValueError(f"evaluate: batch_size and draws are >= 1, got {batch_size} and {draws}.")
    if precision not in get_args(Precision):
        known = ", ".join(map(repr, get_args(Precision)))
        raise ValueError(f"evaluate: precision is one of {known}; got {precision!r}.")
    if cascade:
        attacks = dict(sorted(attacks.items(), key=lambda item: cost(item[1])))
    reserved = {"clean", "worst_case", *RESERVED} & set(attacks)
    if reserved:
        raise ValueError(f"evaluate: an attack cannot be named {sorted(reserved)[0]!r}; rename it.")
    threats = {(a.threat.norm, a.threat.eps) for a in attacks.values()}
    if len(threats) > 1:
        raise ValueError(f"evaluate: attacks must share one threat set, got {sorted(threats)}.")
    norm, eps = next(iter(threats), (None, 0.0))
    n = len(images) if limit is None else min(limit, len(images))
    settings = {name: describe(attack) for name, attack in attacks.items()}
    with evaluating(model):
        stochastic = is_stochastic(model)
        draws = draws if draws is not None else (10 if stochastic else 1)
        job = Job(
            *(model, dict(attacks), seed, stochastic, draws),
            *(batch_size, keep_adversarial, cascade, precision),
        )
        span = batch_size * CHUNK if cascade else batch_size
        identity = {
            "attacks": settings,
            "seed": seed,
            "draws": draws,
            "batch_size": batch_size,
            "samples": n,
            "keep_adversarial": keep_adversarial,
            "cascade": span if cascade else False,
            "precision": precision,
            "keeps": "worst",  # what a part holds, beside outcomes
        }
        store = open_parts(out, identity, model, images) if out is not None else None
        again = draws if cascade and stochastic else 0
        meter = Meter(progress, attacks, n, draws, again)
        parts = []
        for start in range(0, n, span):
            index = torch.arange(start, min(start + span, n))
            kept = store / f"{start:08d}.npz" if store is not None else None
            part = read_part(kept) if kept is not None and kept.exists() else None
            if part is not None:
                meter.skip(len(index))
            else:
                meter.begin(len(index))
                with meter.listening():
                    part = job.run(images, index, meter, kept)
                meter.end()
                if kept is not None:
                    write_npz(kept, **part)
                    begun(kept).unlink(missing_ok=True)
            parts.append(part)
        meter.finish()
    merged = {name: torch.from_numpy(np.concatenate([p[name] for p in parts])) for name in parts[0]}
    outcomes = {name: merged[f"right:{name}"] for name in ("clean", *attacks, "worst_case")}
    chosen = outcomes["worst_case"]
    single = min(("clean", *attacks), key=lambda name: float(outcomes[name].mean()))
    if outcomes[single].mean() < outcomes["worst_case"].mean():
        outcomes["worst_case"] = outcomes[single].clone()
    labels = torch.as_tensor(images.labels)[:n]
    return Evaluation(
        outcomes=outcomes,
        labels=labels,
        index=torch.arange(n),
        settings=settings,
        seconds={name: float(merged[f"seconds:{name}"].sum()) for name in attacks},
        threat={"norm": norm, "eps": eps},
        zero_gradient=float(merged["zero_gradient"].double().mean()),
        stochastic=stochastic,
        draws=draws,
        seed=seed,
        adversarial={name: merged[f"x:{name}"] for name in attacks} if keep_adversarial else {},
        worst=WorstSet(merged["worst_x"], float(chosen.mean())),
        cascade=cascade,
        precision=precision,
    )
