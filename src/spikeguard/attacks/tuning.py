"""Tuning of a gradient's parameter on validation data: HART's gamma, ASSG's A, a width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, cost
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import Gradient, unwrap
from spikeguard.attacks.gradients.spiking_rules import HART
from spikeguard.attacks.model_access import DEFAULT_DRAWS, classify, evaluating, is_stochastic
from spikeguard.data.images import ImageSet, as_image_set
from spikeguard.kernels.selection import unfused
from spikeguard.rng import SampleStreams, key, randomness

__all__ = ["Tuned", "tune", "tuned_to_json", "describe_tuned", "CANDIDATES", "tunable", "adjusted"]


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning run.

    Attributes:
        name: Name of the strongest candidate.
        gradient: The strongest candidate.
        scores: Accuracy under attack for every candidate, in their order; the strongest candidate
            has the lowest.
        samples: Number of samples behind each score.
    """

    name: str
    gradient: Gradient
    scores: dict[str, float]
    samples: int

    @property
    def trials(self) -> int:
        """Number of candidates tried; report it beside every result that uses the choice."""
        return len(self.scores)


def tune(
    model: nn.Module,
    data: ImageSet | tuple[Tensor, Tensor],
    candidates: Mapping[str, Gradient],
    attack: Callable[[Gradient], Attack],
    *,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Tuned:
    """Attack validation data with every candidate and return the strongest.

    Do not use test data: the minimum of several accuracies on the test set is lower than the
    accuracy under any of these attacks on other samples. All candidates get the same samples,
    streams and noise. Ties go to the first candidate.

    Args:
        model: The classifier; it is left unchanged.
        data: Validation data, an ImageSet or a pair (x, y).
        candidates: ``{name: gradient}``.
        attack: Builds the attack for a gradient, for example
            ``lambda gradient: PGD(Linf(8 / 255), gradient=gradient)``.
        limit: Use at most the first ``limit`` samples, >= 1.
        seed: Seed of the random streams.
        batch_size: Samples per batch, >= 1; results do not depend on it.

    Raises:
        ValueError: If there is no candidate, or a number is out of range.
        ThreatViolation: If an attack leaves its threat set.
        AttackError: If weights, logits or gradients are not finite, or there is no gradient.

    Example:
        >>> grid = {f"gamma {g:g}": HART(g) for g in (0.5, 1.0, 2.0)}             # doctest: +SKIP
        >>> found = tune(model, validation, grid, lambda g: PGD(Linf(8 / 255), gradient=g))
        >>> found.name, found.trials                                               # doctest: +SKIP
    """
    if not candidates:
        raise ValueError("tune: there are no candidates; pass {name: gradient}.")
    if (limit is not None and limit < 1) or batch_size < 1:
        raise ValueError(f"tune: limit and batch_size are >= 1, got {limit} and {batch_size}.")
    images = as_image_set(data)
    n = len(images) if limit is None else min(limit, len(images))
    index = torch.split(torch.arange(n), batch_size)
    weight = next(iter(model.parameters()), torch.empty(0))
    scores = {}
    for name, gradient in candidates.items():
        search = attack(gradient)
        right = 0.0
        for rows in index:
            x, y = (part.to(weight.device) for part in images.batch(rows))
            right += _right(model, search, x, y, rows, seed)
        scores[name] = right / n
    best = min(scores, key=lambda name: scores[name])
    return Tuned(best, candidates[best], scores, n)


def _right(
    model: nn.Module, attack: Attack, x: Tensor, y: Tensor, rows: Tensor, seed: int
) -> float:
    """Return the number of samples classified correctly under attack, averaged over noise draws."""
    x_adv = attack(model, x, y, generator=SampleStreams(key(seed, "tune"), rows))
    attack.threat.check(x_adv, x)
    draws = DEFAULT_DRAWS if is_stochastic(model) else 1
    noise = SampleStreams(key(seed, "tune", "score"), rows)
    with torch.no_grad(), evaluating(model), unfused(), randomness(model, noise):
        hits = sum(int((classify(model, x_adv, y).argmax(1) == y).sum()) for _ in range(draws))
    return hits / draws


def tuned_to_json(chosen: Mapping[str, Tuned]) -> dict[str, Any]:
    """Return tuned settings as JSON-compatible data, to be stored with the result."""
    return {
        kind: {
            "setting": found.name,
            "split": "validation",
            "samples": found.samples,
            "trials": found.trials,
        }
        for kind, found in chosen.items()
    }


def describe_tuned(chosen: Mapping[str, Any]) -> str:
    """Summarise the output of :func:`tuned_to_json` in one line."""
    return "; ".join(
        f"{kind} {found['setting']}, the strongest of {found['trials']} on "
        f"{found['samples']} {found['split']} images"
        for kind, found in chosen.items()
    )


# The fixed setting of the suites comes first, so that it wins ties.
_GAMMAS = (0.5, 0.1, 0.2, 0.35, 0.7, 1.0, 1.4, 2.0, 2.45)
_BOUNDS = (0.425, 0.35, 0.37, 0.39, 0.41, 0.44, 0.46, 0.48, 0.49)

CANDIDATES: dict[str, dict[str, Gradient]] = {
    "HART": {f"gamma {gamma:g}": HART(gamma) for gamma in _GAMMAS},
    "ASSG": {f"A {bound:g}": ASSG(bound) for bound in _BOUNDS},
}

_TUNED = {"HART": "gamma", "ASSG": "A"}  # the setting of each kind; others stay as they are


def tunable(attacks: Mapping[str, Attack]) -> dict[str, Callable[[Gradient], Attack]]:
    """Return ``{kind: build}`` for each kind of gradient in a suite that can be tuned.

    ``build(candidate)`` returns the attack that will use the setting, or the cheapest of them if
    there are several: the best setting depends on the search and its length. The candidates are
    ``CANDIDATES[kind]``, over the range searched in the sources.

    Source: Hao et al., ICLR 2024 (gamma 0.10 to 2.45); arXiv:2512.22522 (A 0.35 to 0.49).
    """
    found: dict[str, Callable[[Gradient], Attack]] = {}
    for attack in sorted(attacks.values(), key=cost):
        kind = type(unwrap(getattr(attack, "gradient", None))).__name__
        if kind in CANDIDATES:
            found.setdefault(kind, partial(_with, attack))
    return found


def adjusted(attacks: Mapping[str, Attack], chosen: Mapping[str, Gradient]) -> dict[str, Attack]:
    """Return a suite with the gradients of some kinds replaced.

    Args:
        attacks: ``{name: attack}``.
        chosen: ``{kind: gradient}``, such as ``{"HART": HART(0.7)}``.
    """
    return {name: _adjusted(attack, chosen) for name, attack in attacks.items()}


def _adjusted(attack: Attack, chosen: Mapping[str, Gradient]) -> Attack:
    settings = getattr(attack, "__dataclass_fields__", {})
    gradient = getattr(attack, "gradient", None) if "gradient" in settings else None
    inner = chosen.get(type(unwrap(gradient)).__name__)
    return attack if inner is None else _with(attack, inner)


def _with(attack: Any, inner: Gradient) -> Attack:
    """Return an attack with its innermost gradient replaced."""
    other: Attack = replace(attack, gradient=_exchanged(attack.gradient, inner))
    return other


def _exchanged(gradient: Any, inner: Gradient) -> Gradient:
    """Return a gradient whose innermost gradient has the tuned setting of ``inner``."""
    if not hasattr(gradient, "inner"):
        tuned = _TUNED[type(inner).__name__]
        return replace(gradient, **{tuned: getattr(inner, tuned)})  # type: ignore[no-any-return]
    outer: Gradient = replace(gradient, inner=_exchanged(gradient.inner, inner))
    return outer
