"""rescore(): what the saved inputs of a worst case do to a model, seen once more from the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from spikeguard.attacks.threat import THREATS
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation, load_worst
from spikeguard.evaluation.statistics import Score, wilson
from spikeguard.rng import key

__all__ = ["Rescored", "rescore"]

_SURE = 3.890592  # of a normal: 1 chance in 10,000 that equal accuracies differ so much


@dataclass(frozen=True)
class Rescored:
    """An accuracy as it was reported, and as it was found again.

    Attributes:
        reported: Accuracy that the evaluation scored on these inputs.
        found: Accuracy now, with its interval.
        agrees: Whether the two are one number; for a model with noise, whether they can be.
    """

    reported: float
    found: Score
    agrees: bool


def rescore(model: nn.Module, data: ImageSet, path: str | Path) -> Rescored:
    """Score the saved inputs of an evaluation's worst case again.

    They must lie in the evaluation's threat set around the images of ``data``. A deterministic
    model must give the very accuracy that was reported; a noisy one is scored on other draws, and
    must give one that chance can explain.

    Args:
        model: The classifier that was attacked.
        data: The images it was attacked on.
        path: The saved evaluation, without a suffix.

    Raises:
        ValueError: If a file is missing or damaged, or the inputs are none of these images'.
        ThreatViolation: If an input lies outside the threat set.
    """
    result, worst = Evaluation.load(path), load_worst(path)
    if int(result.index.max()) >= len(data):
        raise ValueError(f"{path}: was made on more than the {len(data)} images given.")
    x, y = data.batch(result.index)
    if worst.x.shape != x.shape or not bool((y == result.labels).all()):
        raise ValueError(
            f"{path}: holds inputs {list(worst.x.shape)} that do not belong to these images "
            f"{list(x.shape)}; hand over the images that were attacked."
        )
    if result.threat["norm"] is not None:
        THREATS[result.threat["norm"]](result.threat["eps"]).check(worst.x, x)
    again = evaluate(
        model, (worst.x, y), {}, seed=key(result.seed, "rescore"), draws=result.draws
    ).clean
    if not result.stochastic:
        agrees = round(again.accuracy * again.n) == round(worst.accuracy * again.n)
    else:  # both are means over draws of the same images; the images' own share cancels, mostly
        low, high = wilson(again.accuracy * again.n, again.n, _SURE)
        agrees = low <= worst.accuracy <= high
    return Rescored(worst.accuracy, again, agrees)
