"""evaluate(): clean accuracy, accuracy under every attack, and the per-sample worst case.

Sample i draws from streams named by the seed, the attack and i, so that its outcome depends neither
on the batch size nor on its neighbours. An evaluation that is killed goes on at the next batch.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks import (
    Attack,
    NoGradientError,
    ThreatViolation,
    classify,
    cross_entropy,
    describe,
    evaluating,
    frozen,
    require_finite_weights,
)
from spikeguard.attacks.base import is_stochastic
from spikeguard.attacks.gradient import BACKPROP
from spikeguard.data import ImageSet, as_image_set
from spikeguard.files import write_json, write_npz
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.scores import PARTS, RESERVED, Evaluation, Score, wilson

__all__ = ["Evaluation", "Score", "evaluate", "wilson"]

Progress = Callable[[int, int, str], None]


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
    progress: Progress | None = None,
) -> Evaluation:
    """Attack a model and count what survives.

    The model is evaluated in evaluation mode and left as it was. A deterministic model's sample
    that is wrong without an attack counts as wrong under every attack and is not attacked. A
    stochastic model's adversarial inputs are scored on fresh draws; its per-sample worst case is
    the attack with the fewest right draws, scored once more on new draws, because the minimum of
    noisy counts is biased. Where that choice, misled by noise, does worse than one attack for all
    samples, the worst case is that attack.

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
        keep_adversarial: Keep the adversarial inputs in the result.
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
        job = _Job(model, dict(attacks), seed, stochastic, draws, keep_adversarial)
        identity = {
            "attacks": settings,
            "seed": seed,
            "draws": draws,
            "batch_size": batch_size,
            "samples": n,
            "keep_adversarial": keep_adversarial,
        }
        store = _store(out, identity, model, images) if out is not None else None
        parts = []
        total = n * (len(attacks) + 1)
        for start in range(0, n, batch_size):
            index = torch.arange(start, min(start + batch_size, n))
            kept = store / f"{start:08d}.npz" if store is not None else None
            part = _read(kept) if kept is not None and kept.exists() else None
            if part is None:
                done = start * (len(attacks) + 1)
                part = job.run(images, index, progress, done, total)
                if kept is not None:
                    write_npz(kept, **part)
            parts.append(part)
        if progress is not None:
            progress(total, total, "done")
    merged = {name: torch.from_numpy(np.concatenate([p[name] for p in parts])) for name in parts[0]}
    outcomes = {name: merged[f"right:{name}"] for name in ("clean", *attacks, "worst_case")}
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
    )


@dataclass(frozen=True)
class _Job:
    """One evaluation; ``run`` does one batch of it."""

    model: nn.Module
    attacks: dict[str, Attack]
    seed: int
    stochastic: bool
    draws: int
    keep_adversarial: bool

    def run(
        self, images: ImageSet, index: Tensor, progress: Progress | None, done: int, total: int
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return the batch's outcomes as arrays."""
        weights = (*self.model.parameters(), *self.model.buffers())
        device = weights[0].device if weights else torch.device("cpu")
        x, y = (part.to(device) for part in images.batch(index))
        clean = self._right(x, y, index, "clean")
        right = {"clean": clean}
        part: dict[str, np.ndarray[Any, Any]] = {"zero_gradient": self._zero(x, y, index)}
        worst, worst_x = clean.clone(), x.clone()
        for place, (name, attack) in enumerate(self.attacks.items()):
            if progress is not None:
                progress(done + (place + 1) * len(index), total, name)
            began = time.monotonic()
            open_ = torch.arange(len(x)) if self.stochastic else clean.nonzero()[:, 0]
            x_adv, right[name] = x.clone(), torch.zeros_like(clean)
            if len(open_):
                streams = SampleStreams(key(self.seed, "attack", name), index[open_])
                at = open_.to(device)
                found = attack(self.model, x[at], y[at], generator=streams).detach()
                try:
                    attack.threat.check(found, x[at])
                except ThreatViolation as error:
                    raise ThreatViolation(f"evaluate: attack {name!r}: {error}") from error
                x_adv[at] = found
                right[name][open_] = self._right(found, y[at], index[open_], name)
            part[f"seconds:{name}"] = np.array([time.monotonic() - began])
            lower = right[name] < worst
            worst = torch.where(lower, right[name], worst)
            worst_x[lower.to(device)] = x_adv[lower.to(device)]
            if self.keep_adversarial:
                part[f"x:{name}"] = x_adv.cpu().numpy()
        if self.stochastic:
            worst = self._right(worst_x, y, index, "worst_case")
        right["worst_case"] = worst
        return part | {f"right:{name}": values.numpy() for name, values in right.items()}

    @torch.no_grad()
    def _right(self, x: Tensor, y: Tensor, index: Tensor, name: str) -> Tensor:
        """Return the share of fresh draws on which each sample is right, float64 [B], on CPU."""
        streams = SampleStreams(key(self.seed, "score", name), index)
        right = torch.zeros(len(x), dtype=torch.float64)
        with evaluating(self.model), randomness(self.model, streams):
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


def _store(out: str | Path, identity: dict[str, Any], model: nn.Module, images: ImageSet) -> Path:
    """Return the folder of finished batches; refuse one that belongs to another evaluation."""
    folder = Path(out) / PARTS
    state = model.state_dict()
    wanted = {
        **identity,
        "model": _digest(repr(model).encode(), repr(getattr(model, "T", None)).encode()),
        "weights": _digest(*(part for name in state for part in (name.encode(), state[name]))),
        "data": _digest(images.images, images.labels, repr(images.peak).encode()),
    }
    card = folder / "identity.json"
    if card.exists():
        try:
            found = json.loads(card.read_text())
        except ValueError as error:
            raise ValueError(f"evaluate: {card} is damaged; remove {folder}.") from error
        changed = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if changed:
            raise ValueError(
                f"evaluate: {folder} holds an unfinished evaluation with other "
                f"{', '.join(changed)}; finish that one, remove the folder, or choose another."
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(card, wanted)
    return folder


def _read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read a finished batch."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"evaluate: {path} is damaged; remove it and run again.") from error


def _digest(*parts: Tensor | bytes) -> str:
    """Return the SHA-256 of tensors, their types and shapes included, and of bytes."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            total.update(f"{part.dtype} {tuple(part.shape)}".encode())
            part = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()
