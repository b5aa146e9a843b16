"""Choose a gradient's parameter on validation data: HART's gamma, ASSG's A, a surrogate's width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import (Attack, classify, evaluating, is_stochastic)
from spikeguard.attacks.gradients.base import Gradient
from spikeguard.data import (ImageSet, as_image_set)
from spikeguard.kernels import unfused
from spikeguard.rng import (SampleStreams, key, randomness)

__all__ = ["Tuned", "tune"]

_DRAWS = 10  # noise draws a stochastic model's answer is taken from


@dataclass(frozen=True)
class Tuned:
    """What was chosen, and from how much.

    Attributes:
        name: Name of the strongest candidate.
        gradient: The candidate.
        scores: For every candidate the share of right answers under attack, in their order; the
            strongest has the least.
        samples: Samples a score was taken on.
    """

    name: str
    gradient: Gradient
    scores: dict[str, float]
    samples: int

    @property
    def trials(self) -> int:
        """How many candidates were tried: belongs beside every number the choice leads to."""
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

    The data must be apart from those that are scored in the end: the least of several accuracies on
    the test set is lower than any of these attacks would do on other samples. All candidates meet
    the same samples, streams and noise. Among equals the first is chosen.

    Args:
        model: The classifier; it is left as it was.
        data: Validation data, an ImageSet or a pair (x, y).
        candidates: ``{name: gradient}``.
        attack: Makes the attack that is to use the gradient, for example
            ``lambda gradient: PGD(Linf(8 / 255), gradient=gradient)``.
        limit: Use at most the first so many samples, >= 1.
        seed: Names the random streams.
        batch_size: Samples at once, >= 1; results do not depend on it.

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
    """Return how many samples of a batch the model still gets right, a share where it is noisy."""
    x_adv = attack(model, x, y, generator=SampleStreams(key(seed, "tune"), rows))
    attack.threat.check(x_adv, x)
    draws = _DRAWS if is_stochastic(model) else 1
    noise = SampleStreams(key(seed, "tune", "score"), rows)
    with torch.no_grad(), evaluating(model), unfused(), randomness(model, noise):
        hits = sum(int((classify(model, x_adv, y).argmax(1) == y).sum()) for _ in range(draws))
    return hits / draws
