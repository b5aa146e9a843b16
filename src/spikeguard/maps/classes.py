"""The class of a cell: what a trained network does there, by rules on counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spikeguard.system.intervals import binomial_tail

__all__ = ["CLASSES", "Behaviour", "CellClass", "classify", "pooled", "still_falls"]

CellClass = Literal["silent", "at chance", "working", "saturated", "not converged"]
CLASSES: dict[CellClass, str] = {
    "working": "accuracy above chance, and the training loss has stopped falling fast",
    "not converged": (
        "the training diverged; or accuracy above chance while the training loss still falls, in "
        "the last quarter of the epochs, at least as fast as on average"
    ),
    "silent": "accuracy at chance, and a layer fires less than one spike in 100 images",
    "saturated": "accuracy at chance, and a layer fires at 99 % of its neurons and steps or more",
    "at chance": "accuracy at chance, and no layer silent or saturated",
}
"""The rule of each class. Guessing reaches an accuracy at chance with a probability above 5 %."""

_LEVEL = 0.05
_FEW = 0.01  # spikes an image
_FULL = 0.99  # spikes by neuron and step


@dataclass(frozen=True)
class Behaviour:
    """What the class of a trained network depends on.

    Attributes:
        right: Test images classified correctly; a mean of several networks may be a fraction.
        images: Number of test images.
        labels: Number of classes of the task.
        least_spikes: Spikes an image of the spiking layer with the fewest.
        top_rate: Spikes by neuron and step of the spiking layer with the highest rate, in [0, 1].
        losses: Mean training loss of each epoch.
    """

    right: float
    images: int
    labels: int
    least_spikes: float
    top_rate: float
    losses: Sequence[float] = ()


def classify(found: Behaviour) -> CellClass:
    """Return the class by the rules of ``CLASSES``.

    Example:
        >>> classify(Behaviour(10, 100, 10, least_spikes=0, top_rate=0.1))
        'silent'
    """
    above = binomial_tail(round(found.right), found.images, 1 / found.labels) <= _LEVEL
    if above:
        return "not converged" if still_falls(found.losses) else "working"
    if found.least_spikes < _FEW:
        return "silent"
    return "saturated" if found.top_rate >= _FULL else "at chance"


def still_falls(losses: Sequence[float]) -> bool:
    """Whether the last quarter of the epochs lowers a loss at least as much as an average one.

    A loss that falls on a straight line still falls. Fewer than three epochs show no trend: False.
    """
    intervals = len(losses) - 1
    if intervals < 2:
        return False
    last = max(1, round(intervals / 4))
    whole, end = losses[0] - losses[-1], losses[-1 - last] - losses[-1]
    return whole > 0 and end >= whole * last / intervals * (1 - 1e-9)


def pooled(seeds: Sequence[Behaviour]) -> Behaviour:
    """Return the mean over the seeds of a cell, whose number of epochs is the same."""
    k = len(seeds)
    return Behaviour(
        sum(each.right for each in seeds) / k,
        seeds[0].images,
        seeds[0].labels,
        sum(each.least_spikes for each in seeds) / k,
        sum(each.top_rate for each in seeds) / k,
        [sum(each) / k for each in zip(*(each.losses for each in seeds), strict=True)],
    )
