"""The protocol of an analysis, its cost, and the batches that analyses share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Table
from spikeguard.attacks.base import describe
from spikeguard.data.images import Data, ImageSet, as_image_set
from spikeguard.data.stratified import few_classes
from spikeguard.preflight.quick import warn
from spikeguard.rng import SampleStreams, key
from spikeguard.system.progress import ProgressCallback

__all__ = [
    "SECTIONS",
    "Analysis",
    "Batch",
    "NotApplicable",
    "Passes",
    "Section",
    "batches",
    "count_of",
    "settings_of",
]

Section = Literal["membranes", "gradients", "landscape", "synchrony", "activity"]
SECTIONS: Mapping[Section, str] = {
    "membranes": "Membrane potentials",
    "gradients": "Gradients",
    "landscape": "Loss landscapes",
    "synchrony": "Synchrony",
    "activity": "Activity and cost",
}


@dataclass(frozen=True)
class Passes:
    """Cost of an analysis: forward passes, and gradients (forward and backward), of one image."""

    forward: float = 0.0
    gradients: float = 0.0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.gradients + other.gradients)


class NotApplicable(ValueError):
    """The network lacks what an analysis measures; the message says what."""


class Analysis(Protocol):
    """A measurement on a trained network, and how its results are shown.

    An analysis is a frozen dataclass whose fields are its settings; ``limit`` (number of images),
    ``attack`` and ``threat`` are filled in by the command line. An attack is applied to the same
    images with the same random numbers in every analysis. One that measures time declares
    ``exempt_from = frozenset({"same_bits"})``, one that reads parameters alone "images".
    """

    name: ClassVar[str]
    """Key in ``ANALYSES``."""
    title: ClassVar[str]
    """Heading in the report."""
    section: ClassVar[Section]
    """Section of the report."""
    source: ClassVar[str]
    """Paper, figure and equations."""
    about: ClassVar[str]
    """One or two sentences below the heading: what is measured and how to read it."""

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Measure; the model is left unchanged, and the result does not depend on batch_size.

        Raises:
            NotApplicable: If the network lacks what is measured.
        """

    def passes(self, samples: int, T: int) -> Passes:
        """Return the passes that a measurement takes in all, for the estimate of its time."""

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the result in one line, from the measurement of every network by its label."""

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return the numbers, one row or more a network."""

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> Sequence[Plot]:
        """Return the charts of all networks."""


@dataclass(frozen=True)
class Batch:
    """Some of the images of an analysis.

    Attributes:
        index: Their places in the data set [B].
        x: Images [B, C, H, W] in [0, 1].
        y: Labels [B].
    """

    index: Tensor
    x: Tensor
    y: Tensor

    def streams(self, seed: int, what: str) -> SampleStreams:
        """Return new random streams of these images; the same for the same seed and name."""
        return SampleStreams(key(seed, "analysis", what), self.index)


def batches(
    model: nn.Module,
    data: Data,
    *,
    limit: int | None,
    batch_size: int,
    progress: ProgressCallback | None = None,
    what: str = "",
) -> Iterator[Batch]:
    """Yield the first images of a data set in batches, on the device of the model.

    Args:
        model: The network.
        data: Images, or a pair (x, y).
        limit: Number of images; None for all.
        batch_size: Images in a batch, >= 1.
        progress: Called after each batch with (done, total, what).
        what: Word for the progress.

    Raises:
        ValueError: If limit or batch_size is below 1.
    """
    images = as_image_set(data)
    n = count_of(images, limit)
    if batch_size < 1:
        raise ValueError(f"batch_size: a number of images >= 1, got {batch_size}.")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for start in range(0, n, batch_size):
        index = torch.arange(start, min(start + batch_size, n))
        x, y = images.batch(index)
        yield Batch(index, x.to(device), y.to(device))
        if progress is not None:
            progress(int(index[-1]) + 1, n, what)


def count_of(images: ImageSet, limit: int | None) -> int:
    """Return the number of images that a limit leaves; warn if it leaves classes out.

    Raises:
        ValueError: If the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: a number of images >= 1, got {limit}.")
    n = len(images) if limit is None else min(limit, len(images))
    if lacking := few_classes(images, n):
        warn([f"analysis: {lacking}."], stacklevel=3)
    return n


def settings_of(analysis: Any, seed: int) -> dict[str, Any]:
    """Return an analysis's settings and seed as plain data."""
    return {**describe(analysis), "seed": seed}
