"""evaluate(): clean accuracy, accuracy under every attack, and the per-sample worst case.

Sample i draws from streams named by the seed, the attack and i, so that its outcome depends neither
on the batch size nor on its neighbours. An evaluation that is killed goes on at the next part: a
batch, or, in a cascade, the next attack on several batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks import (
    Attack,
    NoGradientError,
    ThreatViolation,
    classify,
    cost,
    cross_entropy,
    describe,
    evaluating,
    frozen,
    require_finite_weights,
)
from spikeguard.attacks.active import active_set, can_step
from spikeguard.attacks.base import is_stochastic
from spikeguard.attacks.gradient import BACKPROP
from spikeguard.cascade import Cascade, run_cascade
from spikeguard.data import ImageSet, as_image_set
from spikeguard.files import write_npz
from spikeguard.kernels import unfused
from spikeguard.parts import open_parts, read_part
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.scores import RESERVED, Evaluation, Score, WorstSet, wilson

__all__ = ["Evaluation", "Score", "evaluate", "wilson"]

Progress = Callable[[int, int, str], None]
Precision = Literal["32", "bf16"]
Arrays = dict[str, np.ndarray[Any, Any]]
Tell = Callable[..., None]

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
        progress: Called with (done, total, what), counted in samples times attacks.

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
        job = _Job(
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
        parts = []
        total = n * (len(attacks) + 1)
        for start in range(0, n, span):
            index = torch.arange(start, min(start + span, n))
            kept = store / f"{start:08d}.npz" if store is not None else None
            part = read_part(kept) if kept is not None and kept.exists() else None
            if part is None:
                done = start * (len(attacks) + 1)
                part = job.run(images, index, progress, done, total, kept)
                if kept is not None:
                    write_npz(kept, **part)
                    _begun(kept).unlink(missing_ok=True)
            parts.append(part)
        if progress is not None:
            progress(total, total, "done")
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


@dataclass(frozen=True)
class _Job:
    """One evaluation; ``run`` does one part of it."""

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
        self,
        images: ImageSet,
        index: Tensor,
        progress: Progress | None,
        done: int,
        total: int,
        kept: Path | None,
    ) -> Arrays:
        """Return the part's outcomes as arrays; a cascade keeps beside ``kept`` how far it got."""

        def tell(name: str, attacks: int, samples: int = 0) -> None:
            if progress is not None:
                progress(done + (attacks + 1) * len(index) + samples, total, name)

        weights = (*self.model.parameters(), *self.model.buffers())
        device = weights[0].device if weights else torch.device("cpu")
        x, y = (part.to(device) for part in images.batch(index))
        batches = self._batches(x)
        clean = torch.cat([self._right(x[b], y[b], index[b], "clean") for b in batches])
        zero = np.concatenate([self._zero(x[b], y[b], index[b]) for b in batches])
        if self.cascade:
            attacked = self._cascade(x, y, index, clean, tell, kept)
        else:
            attacked = self._each(x, y, index, clean, tell)
        return {"zero_gradient": zero} | attacked

    def _each(self, x: Tensor, y: Tensor, index: Tensor, clean: Tensor, tell: Tell) -> Arrays:
        """Meet every sample with every attack; one batch."""
        right, part = {"clean": clean}, Arrays()
        worst, worst_x = clean.clone(), x.clone()
        for place, (name, attack) in enumerate(self.attacks.items()):
            tell(name, place)
            began = time.monotonic()
            open_ = torch.arange(len(x)) if self.stochastic else clean.nonzero()[:, 0]
            x_adv, right[name] = x.clone(), torch.zeros_like(clean)
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
        self, x: Tensor, y: Tensor, index: Tensor, clean: Tensor, tell: Tell, kept: Path | None
    ) -> Arrays:
        """Meet every attack with the samples that the attacks before it left; several batches."""
        places = {name: place for place, name in enumerate(self.attacks)}

        def hunt(name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
            tell(name, places[name])
            told = partial(tell, name, places[name])
            at = rows.to(x.device)
            return self._hunt(name, self.attacks[name], x[at], y[at], index[rows], told)

        def rescore(name: str, points: Tensor, rows: Tensor) -> Tensor:
            own, batches = y[rows.to(x.device)], self._batches(points)
            shares = [
                self._right(points[b], own[b], index[rows[b]], "after", name) for b in batches
            ]
            return torch.cat(shares)

        file = None if kept is None else _begun(kept)
        found = run_cascade(
            list(self.attacks),
            x,
            clean,
            hunt=hunt,
            rescore=rescore if self.stochastic else None,
            keep_points=self.keep_adversarial,
            begun=Cascade.of(read_part(file), x.device) if file and file.exists() else None,
            keep=None if file is None else lambda far: write_npz(file, **far.arrays()),
        )
        right = {"clean": clean, **found.right}
        right["worst_case"] = list(right.values())[-1]
        part = {"worst_x": found.worst.cpu().numpy()}
        part |= {f"right:{name}": values.numpy() for name, values in right.items()}
        part |= {f"seconds:{name}": np.array([took]) for name, took in found.seconds.items()}
        return part | {f"x:{name}": points.cpu().numpy() for name, points in found.points.items()}

    def _hunt(
        self, name: str, attack: Attack, x: Tensor, y: Tensor, index: Tensor, tell: Tell
    ) -> tuple[Tensor, Tensor]:
        """Attack and score samples in full batches; step by step where that can be done."""
        if self.stochastic or not can_step(attack, self.model):
            batches = self._batches(x)
            pairs = [self._attack(name, attack, x[b], y[b], index[b]) for b in batches]
            return torch.cat([found for found, _ in pairs]), torch.cat([r for _, r in pairs])
        judged = torch.zeros(len(x), dtype=torch.bool)

        def judge(points: Tensor, rows: Tensor) -> Tensor:
            at = rows.to(x.device)
            judged[rows] = True
            tell(int(judged.sum()))
            return self._score(name, attack, points, x[at], y[at], index[rows])

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


def _begun(kept: Path) -> Path:
    """Where a cascade keeps how far it got with a part."""
    return kept.with_name(f"{kept.stem}.begun")
