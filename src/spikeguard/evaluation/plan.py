"""Plan of an evaluation: its samples divided into shards, for one process or for several."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, cost, describe
from spikeguard.attacks.model_access import (
    DEFAULT_DRAWS,
    evaluating,
    is_stochastic,
    require_finite_weights,
)
from spikeguard.attacks.searches.converging import Converging
from spikeguard.attacks.suitability import require_threats
from spikeguard.attacks.threat import peak_of, require_ball_in_box
from spikeguard.data.images import ImageSet, as_image_set
from spikeguard.data.stratified import few_classes
from spikeguard.encoders.input_space import require_same_kind, space_of
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.progress import ProgressMeter
from spikeguard.evaluation.result_files import ADVERSARIAL, RESERVED, UNUSABLE
from spikeguard.evaluation.search_blocks import BLOCK
from spikeguard.evaluation.shard_runner import (
    Arrays,
    ShardRunner,
    partial_shard_path,
    search_state_path,
)
from spikeguard.evaluation.shard_store import open_shard_store, read_shard, stored_shard_size
from spikeguard.preflight.quick import warn
from spikeguard.storage.atomic_files import write_npz
from spikeguard.system.progress import ProgressCallback

__all__ = ["CHUNK", "EvaluationPlan", "plan_evaluation"]

CHUNK = 8  # batches in a shard of a cascade, so that later attacks still run on full batches


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """An evaluation divided into shards.

    Attributes:
        runner: Attacks and scores the samples of a shard.
        images: The data.
        samples: Number of samples to evaluate, from the first.
        shard_size: Samples of a shard.
        store: Folder of finished shards; None stores nothing.
        settings: Every attack's settings, as plain data.
        threat: The norm and eps that all attacks share.
    """

    runner: ShardRunner
    images: ImageSet
    samples: int
    shard_size: int
    store: Path | None
    settings: dict[str, Any]
    threat: dict[str, Any]

    @property
    def starts(self) -> range:
        """Index of the first sample of every shard."""
        return range(0, self.samples, self.shard_size)

    @property
    def missing(self) -> list[int]:
        """Index of the first sample of every shard that is not stored yet."""
        return [start for start in self.starts if not self._stored(start)]

    def index(self, start: int) -> Tensor:
        """Return the indices of a shard's samples."""
        return torch.arange(start, min(start + self.shard_size, self.samples))

    def meter(self, progress: ProgressCallback | None, samples: int) -> ProgressMeter:
        """Return a meter that counts the gradients spent on ``samples`` samples."""
        runner = self.runner
        rescored = runner.scorer.draws if runner.stochastic else 0
        return ProgressMeter(progress, runner.attacks, samples, runner.scorer.draws, rescored)

    def shard(self, start: int, meter: ProgressMeter) -> Arrays:
        """Run a shard and store it, or read it where it is stored."""
        index, file = self.index(start), self._file(start)
        if file is not None and file.exists():
            meter.skip(len(index))
            return read_shard(file)
        meter.begin(len(index))
        with evaluating(self.runner.model), meter.counting_passes():
            shard = self.runner.run(self.images, index, meter, file)
        meter.end()
        if file is not None:
            write_npz(file, **shard)
            partial_shard_path(file).unlink(missing_ok=True)
            search_state_path(file).unlink(missing_ok=True)
        return shard

    def rows(self, index: Tensor) -> Arrays:
        """Run one batch of samples by their indices [B]; store nothing."""
        meter = self.meter(None, len(index))
        meter.begin(len(index))
        with evaluating(self.runner.model), meter.counting_passes():
            return self.runner.run(self.images, index, meter, None)

    def _file(self, start: int) -> Path | None:
        return None if self.store is None else self.store / f"{start:08d}.npz"

    def _stored(self, start: int) -> bool:
        file = self._file(start)
        return file is not None and file.exists()


def plan_evaluation(
    model: nn.Module,
    data: ImageSet | tuple[Tensor, Tensor],
    attacks: Mapping[str, Attack],
    options: EvaluationOptions,
    *,
    jobs: int = 1,
) -> EvaluationPlan:
    """Check the arguments of an evaluation and divide its samples into shards.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``.
        data: An ImageSet or a pair (x, y).
        attacks: ``{name: attack}``, all with the same threat set.
        options: The options of the evaluation.
        jobs: Make at least ``jobs`` shards where there are enough samples. Shards stored in
            ``options.out`` keep their size: an evaluation may continue with another number of
            processes.

    Raises:
        ValueError: If an attack has a reserved name or another threat set, or ``options.out`` holds
            shards of another evaluation.
        AttackError: If a weight is not finite.
    """
    images = as_image_set(data)
    require_finite_weights(model)
    if options.cascade:
        attacks = dict(sorted(attacks.items(), key=lambda item: cost(item[1])))
    taken = {"clean", "worst_case", *RESERVED, *UNUSABLE}
    for name in attacks:
        if name in taken or name.startswith(ADVERSARIAL):
            raise ValueError(f"evaluate: an attack cannot be named {name!r}; rename it.")
    require_same_kind(space_of(model), images.space, "evaluate")
    threats = {(a.threat.norm, a.threat.eps, peak_of(a.threat)) for a in attacks.values()}
    if len(threats) > 1:
        shown = sorted(each[:2] if each[2] == 1 else each for each in threats)
        raise ValueError(f"evaluate: attacks must share one threat set, got {shown}.")
    norm, eps, peak = next(iter(threats), (None, 0.0, 1.0))
    threat = {"norm": norm, "eps": eps} | ({} if peak == 1 else {"peak": describe(peak)})
    require_threats(attacks.values(), model)
    for attack in list(attacks.values())[:1]:
        require_ball_in_box(attack.threat, images.batch(slice(1))[0])
    n = len(images) if options.limit is None else min(options.limit, len(images))
    if lacking := few_classes(images, n):
        warn([f"evaluate: {lacking}."], stacklevel=3)
    settings = {name: describe(attack) for name, attack in attacks.items()}
    stochastic = is_stochastic(model)
    if options.draws is None:
        options = replace(options, draws=DEFAULT_DRAWS if stochastic else 1)
    batches = CHUNK if options.cascade else 1
    size = min(options.batch_size * batches, max(1, math.ceil(n / jobs)))
    converging = [name for name, each in attacks.items() if isinstance(each, Converging)]
    if converging and not options.cascade:
        raise ValueError(
            f"evaluate: attack {converging[0]!r} searches many samples together; pass cascade=True."
        )
    if len(converging) > 1:
        raise ValueError(f"evaluate: one converging search at a time, got {converging}.")
    if converging:
        size = BLOCK * math.ceil(size / BLOCK)
    store = None
    if options.out is not None:
        size = stored_shard_size(options.out) or size
        identity = {
            **options.identity(),
            "attacks": settings,
            "samples": n,
            "span": size,
            "keeps": "worst",  # the inputs that a shard holds beside outcomes
        }
        if stochastic:
            identity["scores"] = "common"  # all inputs of a sample are scored on the same draws
        store = open_shard_store(options.out, identity, model, images)
    runner = ShardRunner(model, dict(attacks), options, stochastic)
    return EvaluationPlan(runner, images, n, size, store, settings, threat)
