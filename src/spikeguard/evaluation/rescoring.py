"""rescore(): score the saved inputs of a worst case again, read from disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from spikeguard.attacks.threat_names import threat_of
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.result_files import load_worst
from spikeguard.evaluation.statistics import Score, wilson
from spikeguard.rng import key

__all__ = ["Rescored", "rescore"]

_SURE = 3.890592  # normal quantile: equal accuracies differ by more with probability 1e-4


@dataclass(frozen=True)
class Rescored:
    """An accuracy as reported and as scored again.

    Attributes:
        reported: Accuracy that the evaluation scored on these inputs.
        found: Accuracy now, with its interval.
        agrees: Whether the two are equal; for a stochastic model, whether noise explains the gap.
    """

    reported: float
    found: Score
    agrees: bool


def rescore(model: nn.Module, data: ImageSet, path: str | Path) -> Rescored:
    """Score the saved inputs of an evaluation's worst case again.

    The inputs must be in the evaluation's threat set around the images of ``data``. A
    deterministic model must reach exactly the reported accuracy. A stochastic model is scored on
    other draws and must reach an accuracy that noise can explain.

    Args:
        model: The classifier that was attacked.
        data: The images it was attacked on.
        path: The saved evaluation, without a suffix.

    Raises:
        ValueError: If a file is missing or damaged, or the inputs belong to other images.
        ThreatViolation: If an input is outside the threat set.
    """
    result, worst = Evaluation.load(path), load_worst(path)
    if int(result.index.max()) >= len(data):
        raise ValueError(f"{path}: was made on more than the {len(data)} images given.")
    x, y = data.batch(result.index)
    if worst.x.shape != x.shape or not bool((y == result.labels).all()):
        raise ValueError(
            f"{path}: holds inputs {list(worst.x.shape)} that do not belong to these images "
            f"{list(x.shape)}; pass the images that were attacked."
        )
    if result.threat["norm"] is not None:
        norm, peak = result.threat["norm"], float(result.threat.get("peak", 1.0))
        norm = norm if peak == 1 else f"{norm} peak={peak!r}"
        threat_of(norm, result.threat["eps"]).check(worst.x, x)
    shown = ImageSet(
        worst.x, y, data.num_classes, "adversarial", 1.0, space=replace(data.space, whole=False)
    )
    again = evaluate(
        *(model, shown, {}),
        seed=key(result.seed, "rescore"),
        draws=result.draws,
        check=False,
        progress=None,
    ).clean
    if not result.stochastic:
        agrees = round(again.accuracy * again.n) == round(worst.accuracy * again.n)
    else:  # both are means over draws on the same images, so most of their variance cancels
        low, high = wilson(again.accuracy * again.n, again.n, _SURE)
        agrees = low <= worst.accuracy <= high
    return Rescored(worst.accuracy, again, agrees)
