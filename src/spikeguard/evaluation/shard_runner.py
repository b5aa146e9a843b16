"""One part of an evaluation: attack some samples with every attack, and score what is found."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, NoGradientError
from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import classify, evaluating, frozen
from spikeguard.attacks.searches.active_set import active_set, can_step
from spikeguard.attacks.threat import ThreatViolation
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.cascade import Cascade, run_cascade
from spikeguard.evaluation.progress import ProgressMeter
from spikeguard.evaluation.shard_store import read_shard
from spikeguard.kernels.selection import unfused
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.storage.atomic_files import write_npz

__all__ = ["Arrays", "ShardRunner", "Precision", "partial_shard_path"]

Precision = Literal["32", "bf16"]
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class ShardRunner:
    """What an evaluation does with its samples, part by part; fields as for ``evaluate``."""

    model: nn.Module
    attacks: dict[str, Attack]
    seed: int
    stochastic: bool
    draws: int
    batch_size: int
    keep_adversarial: bool
    cascade: bool
    precision: Precision

    def run(
        self, images: ImageSet, index: Tensor, meter: ProgressMeter, kept: Path | None
    ) -> Arrays:
        """Return the part's outcomes as arrays; a cascade keeps beside ``kept`` how far it got."""
        weights = (*self.model.parameters(), *self.model.buffers())
        device = weights[0].device if weights else torch.device("cpu")
        x, y = (part.to(device) for part in images.batch(index))
        batches = self._batches(x)
        clean = torch.cat([self._right(x[b], y[b], index[b], "clean") for b in batches])
        zero = np.concatenate([self._zero(x[b], y[b], index[b]) for b in batches])
        if self.cascade:
            attacked = self._cascade(x, y, index, clean, meter, kept)
        else:
            attacked = self._attack_independently(x, y, index, clean, meter)
        return {"zero_gradient": zero} | attacked

    def _attack_independently(
        self, x: Tensor, y: Tensor, index: Tensor, clean: Tensor, meter: ProgressMeter
    ) -> Arrays:
        """Meet every sample with every attack; one batch."""
        right, part = {"clean": clean}, Arrays()
        worst, worst_x = clean.clone(), x.clone()
        for name, attack in self.attacks.items():
            began = time.monotonic()
            open_ = torch.arange(len(x)) if self.stochastic else clean.nonzero()[:, 0]
            x_adv, right[name] = x.clone(), torch.zeros_like(clean)
            meter.attack(name, len(open_))
            if len(open_):
                at = open_.to(x.device)
                found, right[name][open_] = self._attack(name, attack, x[at], y[at], index[open_])
                x_adv[at] = found
            part[f"seconds:{name}"] = np.array([time.monotonic() - began])
            lower = right[name] < worst
            worst = torch.where(lower, right[name], worst)
            worst_x[lower.to(x.device)] = x_adv[lower.to(x.device)]
            if self.keep_adversarial:
                part[f"x:{name}"] = x_adv.cpu().numpy()
        if self.stochastic:
            worst = self._right(worst_x, y, index, "worst_case")
        right["worst_case"] = worst
        part["worst_x"] = worst_x.cpu().numpy()
        return part | {f"right:{name}": values.numpy() for name, values in right.items()}

    def _cascade(
        self,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        clean: Tensor,
        meter: ProgressMeter,
        kept: Path | None,
    ) -> Arrays:
        """Meet every attack with the samples that the attacks before it left; several batches."""

        def attack_samples(name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
            meter.attack(name, len(rows))
            at = rows.to(x.device)
            return self._attack_samples(name, self.attacks[name], x[at], y[at], index[rows], meter)

        def rescore(name: str, points: Tensor, rows: Tensor) -> Tensor:
            own, batches = y[rows.to(x.device)], self._batches(points)
            shares = [
                self._right(points[b], own[b], index[rows[b]], "after", name) for b in batches
            ]
            return torch.cat(shares)

        file = None if kept is None else partial_shard_path(kept)
        before = Cascade.of(read_shard(file), x.device) if file and file.exists() else None
        if before is not None:
            meter.resume()
        found = run_cascade(
            list(self.attacks),
            x,
            clean,
            attack_samples=attack_samples,
            rescore=rescore if self.stochastic else None,
            keep_points=self.keep_adversarial,
            resume_from=before,
            on_progress=None if file is None else lambda far: write_npz(file, **far.arrays()),
        )
        right = {"clean": clean, **found.right}
        right["worst_case"] = list(right.values())[-1]
        part = {"worst_x": found.worst.cpu().numpy()}
        part |= {f"right:{name}": values.numpy() for name, values in right.items()}
        part |= {f"seconds:{name}": np.array([took]) for name, took in found.seconds.items()}
        return part | {f"x:{name}": points.cpu().numpy() for name, points in found.points.items()}

    def _attack_samples(
        self, name: str, attack: Attack, x: Tensor, y: Tensor, index: Tensor, meter: ProgressMeter
    ) -> tuple[Tensor, Tensor]:
        """Attack and score samples in full batches; step by step where that can be done."""
        if self.stochastic or not can_step(attack, self.model):
            batches = self._batches(x)
            pairs = [self._attack(name, attack, x[b], y[b], index[b]) for b in batches]
            return torch.cat([found for found, _ in pairs]), torch.cat([r for _, r in pairs])
        fooled = torch.zeros(len(x), dtype=torch.bool)

        def judge(points: Tensor, rows: Tensor) -> Tensor:
            at = rows.to(x.device)
            right = self._score(name, attack, points, x[at], y[at], index[rows])
            fooled[rows] = right == 0
            meter.fooled(int(fooled.sum()))
            return right

        streams = SampleStreams(key(self.seed, "attack", name), index)
        size = self.batch_size
        with self._searching(x):
            return active_set(
                attack, self.model, x, y, streams=streams, batch_size=size, judge=judge
            )

    def _attack(
        self, name: str, attack: Attack, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attack and score one batch."""
        streams = SampleStreams(key(self.seed, "attack", name), index)
        with self._searching(x):
            found = attack(self.model, x, y, generator=streams).detach()
        return found, self._score(name, attack, found, x, y, index)

    def _batches(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(torch.arange(len(x)), self.batch_size)

    def _searching(self, x: Tensor) -> AbstractContextManager[None]:
        """The precision in which attacks run."""
        on = self.precision == "bf16"
        return torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=on)

    def _score(
        self, name: str, attack: Attack, found: Tensor, x: Tensor, y: Tensor, index: Tensor
    ) -> Tensor:
        """Return the share of right answers on what an attack found and its threat set allows."""
        try:
            attack.threat.check(found, x)
        except ThreatViolation as error:
            raise ThreatViolation(f"evaluate: attack {name!r}: {error}") from error
        return self._right(found, y, index, name)

    @torch.no_grad()
    def _right(self, x: Tensor, y: Tensor, index: Tensor, *name: str) -> Tensor:
        """Return the share of fresh draws on which each sample is right, float64 [B], on CPU.

        In float32 and with nothing fused, whatever the search before it did.
        """
        streams = SampleStreams(key(self.seed, "score", *name), index)
        right = torch.zeros(len(x), dtype=torch.float64)
        exact = torch.autocast(x.device.type, enabled=False)
        with evaluating(self.model), randomness(self.model, streams), exact, unfused():
            for _ in range(self.draws):
                right += (classify(self.model, x, y).argmax(1) == y).cpu()
        return right / self.draws

    def _zero(self, x: Tensor, y: Tensor, index: Tensor) -> np.ndarray[Any, Any]:
        """Say for each sample whether its input gradient is exactly zero [B]."""
        streams = SampleStreams(key(self.seed, "zero gradient"), index)
        with frozen(self.model), randomness(self.model, streams):
            try:
                _, grad = BACKPROP(self.model, x, y, cross_entropy)
            except NoGradientError:
                return np.ones(len(x), dtype=bool)
        return (grad.flatten(1).abs().amax(1) == 0).cpu().numpy()


def partial_shard_path(kept: Path) -> Path:
    """Where a cascade keeps how far it got with a part."""
    return kept.with_name(f"{kept.stem}.begun")
