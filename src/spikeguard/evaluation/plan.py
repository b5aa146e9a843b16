"""An evaluation laid out in parts, which can be made in any order and by several processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, cost, describe
from spikeguard.attacks.model_access import evaluating, is_stochastic, require_finite_weights
from spikeguard.data.images import ImageSet, as_image_set
from spikeguard.evaluation.progress import Progress, ProgressMeter
from spikeguard.evaluation.result import RESERVED
from spikeguard.evaluation.shard_runner import Arrays, Precision, ShardRunner, partial_shard_path
from spikeguard.evaluation.shard_store import open_shard_store, read_shard, stored_shard_size
from spikeguard.storage.atomic_files import write_npz

__all__ = ["CHUNK", "EvaluationPlan", "plan_evaluation"]

CHUNK = 8  # batches in a part of a cascade: a queue from which batches are filled up


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """What is evaluated, part by part.

    Attributes:
        job: What is done with samples.
        images: The data.
        samples: How many of them count, from the first.
        span: Samples in a part.
        store: Folder of finished parts; None keeps none.
        settings: Every attack's settings, as plain data.
        threat: The norm and eps the attacks share.
    """

    job: ShardRunner
    images: ImageSet
    samples: int
    span: int
    store: Path | None
    settings: dict[str, Any]
    threat: dict[str, Any]

    @property
    def starts(self) -> range:
        """The first sample of every part."""
        return range(0, self.samples, self.span)

    @property
    def missing(self) -> list[int]:
        """The first sample of every part that is not kept yet."""
        return [start for start in self.starts if not self._kept(start)]

    def index(self, start: int) -> Tensor:
        """Return the places of a part's samples."""
        return torch.arange(start, min(start + self.span, self.samples))

    def meter(self, progress: Progress | None, samples: int) -> ProgressMeter:
        """Return what counts the gradients made for some of the samples."""
        job = self.job
        again = job.draws if job.cascade and job.stochastic else 0
        return ProgressMeter(progress, job.attacks, samples, job.draws, again)

    def part(self, start: int, meter: ProgressMeter) -> Arrays:
        """Make a part, or read it back where it is kept."""
        index, kept = self.index(start), self._file(start)
        if kept is not None and kept.exists():
            meter.skip(len(index))
            return read_shard(kept)
        meter.begin(len(index))
        with evaluating(self.job.model), meter.counting_passes():
            part = self.job.run(self.images, index, meter, kept)
        meter.end()
        if kept is not None:
            write_npz(kept, **part)
            partial_shard_path(kept).unlink(missing_ok=True)
        return part

    def _file(self, start: int) -> Path | None:
        return None if self.store is None else self.store / f"{start:08d}.npz"

    def _kept(self, start: int) -> bool:
        file = self._file(start)
        return file is not None and file.exists()


def plan_evaluation(
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
    jobs: int = 1,
) -> EvaluationPlan:
    """Check the arguments of an evaluation and divide its samples into parts.

    Args:
        model: As for :func:`spikeguard.evaluate`, and so are all but the last.
        data: The same.
        attacks: The same.
        seed: The same.
        limit: The same.
        batch_size: The same.
        draws: The same.
        out: The same.
        keep_adversarial: The same.
        cascade: The same.
        precision: The same.
        jobs: Make at least so many parts, where there are samples enough. Parts that ``out`` holds
            already decide: what one number of processes began another goes on with.

    Raises:
        ValueError: If an argument is out of range, or ``out`` holds parts of another evaluation.
        AttackError: If a weight is not finite.
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
    stochastic = is_stochastic(model)
    draws = draws if draws is not None else (10 if stochastic else 1)
    job = ShardRunner(
        *(model, dict(attacks), seed, stochastic, draws),
        *(batch_size, keep_adversarial, cascade, precision),
    )
    span = min(batch_size * (CHUNK if cascade else 1), max(1, math.ceil(n / jobs)))
    store = None
    if out is not None:
        span = stored_shard_size(out) or span
        identity = {
            "attacks": settings,
            "seed": seed,
            "draws": draws,
            "batch_size": batch_size,
            "samples": n,
            "span": span,
            "keep_adversarial": keep_adversarial,
            "cascade": cascade,
            "precision": precision,
            "keeps": "worst",  # what a part holds, beside outcomes
        }
        store = open_shard_store(out, identity, model, images)
    return EvaluationPlan(job, images, n, span, store, settings, {"norm": norm, "eps": eps})
