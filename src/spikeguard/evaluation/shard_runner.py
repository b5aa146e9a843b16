"""ShardRunner: runs every attack on the samples of one shard and scores the results."""

from __future__ import annotations

import gc
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.converging import CHOICE_DRAWS, Converging
from spikeguard.attacks.searches.stepwise import can_step
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.attack_records import SampleRecords, attacked
from spikeguard.evaluation.batch_size import BatchSize
from spikeguard.evaluation.cascade import Cascade, run_cascade
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.progress import ProgressMeter
from spikeguard.evaluation.scoring import Scorer
from spikeguard.evaluation.search_blocks import SearchBlocks
from spikeguard.evaluation.shard_store import read_shard
from spikeguard.evaluation.worst_case import REPORT
from spikeguard.rng import SampleStreams, key
from spikeguard.storage.atomic_files import write_npz
from spikeguard.system.out_of_memory import is_out_of_memory

__all__ = [
    "Arrays",
    "ShardRunner",
    "partial_shard_path",
    "search_state_path",
]

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class ShardRunner:
    """Attacks and scores samples, shard by shard.

    Attributes:
        model: The classifier.
        attacks: ``{name: attack}`` in the order in which they run.
        options: The options of the evaluation; ``draws`` is a number.
        stochastic: Whether the model draws noise.
    """

    model: nn.Module
    attacks: dict[str, Attack]
    options: EvaluationOptions
    stochastic: bool
    _batch: BatchSize = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_batch", BatchSize(self.options.batch_size))

    @property
    def scorer(self) -> Scorer:
        """Scores inputs on the draws of this evaluation."""
        assert self.options.draws is not None, "plan_evaluation fills it in"
        return Scorer(self.model, self.options.seed, self.options.draws, self.stochastic)

    @property
    def batch_size(self) -> int:
        """Samples at once: those of the options, or fewer where memory ran out."""
        return self._batch.samples

    def run(
        self, images: ImageSet, index: Tensor, meter: ProgressMeter, file: Path | None
    ) -> Arrays:
        """Return the outcomes of a shard as arrays; halve the batches where memory runs out.

        Args:
            images: The data.
            index: Indices of the shard's samples [N].
            meter: Counts the gradients.
            file: The file for the shard, or None. A cascade saves its state in a file beside it.

        Raises:
            OutOfMemory: If a single sample is too much.
        """
        while True:
            try:
                return self._run(images, index, meter, file)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                shortage = error.with_traceback(None)  # it holds the tensors of the failed pass
            self._batch.halve(shortage)
            meter.resume()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _run(
        self, images: ImageSet, index: Tensor, meter: ProgressMeter, file: Path | None
    ) -> Arrays:
        weights = (*self.model.parameters(), *self.model.buffers())
        device = weights[0].device if weights else torch.device("cpu")
        x, y = (tensor.to(device) for tensor in images.batch(index))
        batches = self._batches(x)
        scorer = self.scorer
        clean = torch.cat([scorer.share(x[b], y[b], index[b]) for b in batches])
        zero = np.concatenate([self.scorer.zero_gradient(x[b], y[b], index[b]) for b in batches])
        if self.options.cascade:
            attacked = self._attack_in_cascade(x, y, index, clean, meter, file)
        else:
            attacked = self._attack_independently(x, y, index, clean, meter)
        return {"zero_gradient": zero, "classes": np.array([*scorer.classes])} | attacked

    def _attack_independently(
        self, x: Tensor, y: Tensor, index: Tensor, clean: Tensor, meter: ProgressMeter
    ) -> Arrays:
        """Run every attack on every sample of a shard."""
        correct, shard = {"clean": self._reported(x, y, index, clean)}, Arrays()
        least, worst, worst_x = clean.clone(), correct["clean"].clone(), x.clone()
        records = SampleRecords(len(x), self._no_records(len(x)))
        for name, attack in self.attacks.items():
            started = time.monotonic()
            rows = torch.arange(len(x)) if self.stochastic else clean.nonzero()[:, 0]
            x_adv, shares = x.clone(), torch.zeros_like(clean)
            meter.attack(name, len(rows))
            for batch in torch.split(rows, self._batch.samples) if len(rows) else ():
                at = batch.to(x.device)
                x_adv[at], shares[batch], record = self._attack(
                    name, attack, x[at], y[at], index[batch]
                )
                records.add(name, batch, record, shares[batch])
            correct[name] = self._reported(x_adv, y, index, shares)
            shard[f"seconds:{name}"] = np.array([time.monotonic() - started])
            lower = shares < least
            least = torch.where(lower, shares, least)
            worst = torch.where(lower, correct[name], worst)
            worst_x[lower.to(x.device)] = x_adv[lower.to(x.device)]
            shard[f"after:{name}"] = worst.numpy()
            if self.options.keep_adversarial:
                shard[f"x:{name}"] = x_adv.cpu().numpy()
        correct["worst_case"] = worst
        shard["worst_x"] = worst_x.cpu().numpy()
        shard |= {f"record:{name}": values.numpy() for name, values in records.items()}
        return shard | {f"right:{name}": values.numpy() for name, values in correct.items()}

    def _reported(self, x: Tensor, y: Tensor, index: Tensor, shares: Tensor) -> Tensor:
        """Return the shares to report; ``shares`` are those of the choice."""
        parts = [self.scorer.reported(x[b], y[b], index[b], shares[b]) for b in self._batches(x)]
        return torch.cat(parts)

    def _attack_in_cascade(
        self,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        clean: Tensor,
        meter: ProgressMeter,
        file: Path | None,
    ) -> Arrays:
        """Run each attack on the samples that survived the previous ones; several batches."""

        def attack_samples(name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
            meter.attack(name, len(rows))
            at = rows.to(x.device)
            attack = self.attacks[name]
            if name in searches:
                return self._converge(
                    name, searches[name], x[at], y[at], index[rows], clean[rows], meter
                )
            points, shares, record = self._attack_samples(
                name, attack, x[at], y[at], index[rows], meter
            )
            records.add(name, rows, record, shares)
            return points, shares

        def rescore(points: Tensor, rows: Tensor) -> Tensor:
            labels, batches = y[rows.to(x.device)], self._batches(points)
            shares = [
                self.scorer.share(points[b], labels[b], index[rows[b]], name=REPORT)
                for b in batches
            ]
            return torch.cat(shares)

        reported = rescore(x, torch.arange(len(x))) if self.stochastic else clean
        saved = None if file is None else partial_shard_path(file)
        searches = {
            name: SearchBlocks(attack, file and search_state_path(file), x.device)
            for name, attack in self.attacks.items()
            if isinstance(attack, Converging)
        }
        before = Cascade.of(read_shard(saved), x.device) if saved and saved.exists() else None
        known = self._no_records(len(x)) | ({} if before is None else before.records)
        records = SampleRecords(len(x), known)
        if before is not None or any(each.blocks for each in searches.values()):
            meter.resume()
        found = run_cascade(
            list(self.attacks),
            x,
            clean,
            reported,
            attack_samples=attack_samples,
            rescore=rescore if self.stochastic else None,
            keep_points=self.options.keep_adversarial,
            resume_from=before,
            records=records,
            on_progress=None if saved is None else lambda state: write_npz(saved, **state.arrays()),
        )
        correct = {"clean": reported, **found.right}
        correct["worst_case"] = list(correct.values())[-1]
        shard = {"worst_x": found.worst.cpu().numpy()}
        shard |= {f"right:{name}": values.numpy() for name, values in correct.items()}
        shard |= {f"seconds:{name}": np.array([took]) for name, took in found.seconds.items()}
        shard |= {f"record:{name}": values.numpy() for name, values in records.items()}
        for each in searches.values():
            if each.blocks:  # some sample was searched
                shard["search"] = np.array([each.record()])
        return shard | {f"x:{name}": points.cpu().numpy() for name, points in found.points.items()}

    def _attack_samples(
        self, name: str, attack: Attack, x: Tensor, y: Tensor, index: Tensor, meter: ProgressMeter
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Attack and score samples in full batches; step by step where the attack allows it."""
        if self.stochastic or not can_step(attack, self.model):
            made = [self._attack(name, attack, x[b], y[b], index[b]) for b in self._batches(x)]
            record = {name: torch.cat([part[name] for *_, part in made]) for name in made[0][2]}
            return torch.cat([part[0] for part in made]), torch.cat([p[1] for p in made]), record
        fooled = torch.zeros(len(x), dtype=torch.bool)

        def judge(points: Tensor, rows: Tensor) -> Tensor:
            at = rows.to(x.device)
            correct = self.scorer.adversarial(
                name, attack.threat, points, x[at], y[at], index[rows]
            )
            fooled[rows] = correct == 0
            meter.fooled(int(fooled.sum()))
            return correct

        streams = SampleStreams(key(self.options.seed, "attack", name), index)
        size = self._batch.samples
        with self._search_precision(x):
            found, shares = active_set(
                attack, self.model, x, y, streams=streams, batch_size=size, judge=judge
            )
        return found, shares, {}

    def _converge(
        self,
        name: str,
        search: SearchBlocks,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        right: Tensor,
        meter: ProgressMeter,
    ) -> tuple[Tensor, Tensor]:
        """Run a converging search on samples and return its points and their shares."""

        def judge(points: Tensor, rows: Tensor) -> Tensor:
            at = rows.to(x.device)
            draws = CHOICE_DRAWS * self.scorer.draws if self.stochastic else 1
            return self.scorer.adversarial(
                name, search.attack.threat, points, x[at], y[at], index[rows], draws
            )

        with self._search_precision(x):
            return search.run(
                self.model, x, y, index, right,
                SampleStreams(key(self.options.seed, "attack", name), index),
                batch_size=self._batch.samples, judge=judge,
                expect=meter.expect,
            )  # fmt: skip

    def _attack(
        self, name: str, attack: Attack, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Attack and score one batch; return the inputs, their shares and the attack's record."""
        streams = SampleStreams(key(self.options.seed, "attack", name), index)
        with self._search_precision(x):
            found, record = attacked(attack, self.model, x, y, streams)
        return found, self.scorer.adversarial(name, attack.threat, found, x, y, index), record

    def _no_records(self, samples: int) -> dict[str, Tensor]:
        """Return the records of the attacks that have some, before a sample was attacked."""
        names = (
            f"{name}:{key}"
            for name, attack in self.attacks.items()
            for key in getattr(attack, "record_names", ())
        )
        return {name: torch.full((samples,), torch.nan, dtype=torch.float64) for name in names}

    def _batches(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(torch.arange(len(x)), self._batch.samples)

    def _search_precision(self, x: Tensor) -> AbstractContextManager[None]:
        """Autocast to the precision of the attacks' passes."""
        enabled = self.options.precision == "bf16"
        return torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=enabled)


def search_state_path(file: Path) -> Path:
    """Return the file in which a converging search saves its state within a shard."""
    return file.with_name(f"{file.stem}.search")


def partial_shard_path(file: Path) -> Path:
    """Return the file in which a cascade saves its state within the shard stored at ``file``."""
    return file.with_name(f"{file.stem}.begun")
