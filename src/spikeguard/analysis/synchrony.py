"""Analysis ``synchrony``: correlations of spike trains before and after frames become noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.analysis import synchrony_charts, synchrony_results
from spikeguard.analysis.attacked import recorded
from spikeguard.analysis.base import Batch, NotApplicable, Passes, Section, batches, settings_of
from spikeguard.analysis.correlation import CONVENTIONS
from spikeguard.analysis.frames import present_frames, replace_until_failure, spare_frames
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Table
from spikeguard.analysis.spike_trains import TIMES, SpikeTrains
from spikeguard.analysis.synchrony_statistics import (
    CHANGES,
    CONDITIONS,
    MAPS,
    statistics,
    thinned,
)
from spikeguard.data.images import Data
from spikeguard.system.progress import ProgressCallback

__all__ = ["Synchrony"]

_TRIES = 8  # draws of the control for one image


@dataclass(frozen=True)
class Synchrony:
    """Correlate the spike trains of every layer, clean and after frames were replaced by noise.

    Args:
        limit: Number of images; None for all.
        neurons: Number of neurons of a layer that are correlated, 2 to 1024; a larger layer is
            represented by a random sample of this size.

    Raises:
        ValueError: If neurons is outside 2 to 1024.

    Source: operational-space paper, Algorithm 1, Fig. 3 and Table IV.
    """

    limit: int | None = 128
    neurons: int = 256

    name: ClassVar[str] = "synchrony"
    title: ClassVar[str] = "Correlated spike trains when frames become noise"
    section: ClassVar[Section] = "synchrony"
    source: ClassVar[str] = "operational-space paper, Algorithm 1, Fig. 3, Table IV"
    about: ClassVar[str] = (
        "Frames of the input are replaced by Gaussian noise until the network fails; the Pearson "
        "correlations of its spike trains are compared with those of the clean image, of as many "
        "noise frames without failure (control), and of shuffled time (below the diagonal of the "
        "matrices). A constant train has no correlation, 0/0: trust a sign only where both "
        "conventions agree."
    )

    def __post_init__(self) -> None:
        if not 2 <= self.neurons <= 1024:
            raise ValueError(f"Synchrony: neurons must be 2 to 1024, got {self.neurons}.")

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return frames to failure, and correlations by layer, condition, convention and time.

        Raises:
            NotApplicable: If the network takes no image per step, has fewer than 2 steps, or its
                spikes cannot be recorded.
        """
        T = int(getattr(model, "T", 0))
        if T < 2:
            raise NotApplicable("spike trains need a network with T >= 2 steps.")
        trains = SpikeTrains(CONDITIONS, self.neurons, seed)
        counts, matched = [], []
        for batch in batches(
            model, data, limit=self.limit, batch_size=batch_size, progress=progress
        ):
            count, found = _add(trains, model, batch, T, seed)
            counts.append(count)
            matched.append(found)
        frames = torch.cat(counts).numpy()
        names, last = list(trains.layers), trains.last_hidden() if trains.layers else ""
        maps = [thinned(trains.layers.get(last), *at) for at in MAPS]
        axes: dict[str, Any] = {
            "frames": np.arange(1, T + 1),
            "layer": np.array(names, dtype=np.str_),
            "condition": CONDITIONS,
            "change": [" - ".join(pair) for pair in CHANGES],
            "convention": CONVENTIONS,
            "time": TIMES,
            "map": [f"{condition}, {time}" for condition, time in MAPS],
            "row": np.arange(len(maps[0])),
            "column": np.arange(len(maps[0])),
        }
        layers = list(trains.layers.values())
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            len(frames),
            axes,
            right=(int((frames > 0).sum()), [], "images", "classified right without noise"),
            never=(int((frames > T).sum()), [], "images", "right with all frames replaced"),
            failures=(
                [int((frames == k).sum()) for k in range(1, T + 1)],
                ["frames"],
                "images",
                "that fail at this number of replaced frames",
            ),
            neurons=([a.neurons for a in layers], ["layer"], "neurons", "of the layer"),
            correlated=([len(a.chosen) for a in layers], ["layer"], "neurons", "correlated"),
            last=(last, [], "", "last hidden layer"),
            matrix=(
                np.stack(maps),
                ["map", "row", "column"],
                "1",
                "mean correlations in the last hidden layer, undefined ones left out",
            ),
            **statistics(layers, torch.cat(matched).numpy()),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return about the passes of a network that is right on most images and fails early."""
        return Passes(forward=samples * (T / 2 + 5))

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the undefined share and the change of correlation under both conventions."""
        return synchrony_results.result(found)

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every condition of every network: its last hidden layer."""
        return synchrony_results.table(found)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return frames to failure, undefined pairs, changes by layer, and matrices."""
        return synchrony_charts.plots(found)


def _add(
    trains: SpikeTrains, model: nn.Module, batch: Batch, T: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Add the trains of a batch, and return its frames to failure and which controls exist.

    Returns:
        Frames to failure [B]: 0 for an image whose class is wrong without noise, T + 1 for one
        that never fails; and for every image that failed, whether it has a control.
    """

    def classifier(images: Batch) -> Any:
        def classify(frames: Tensor, index: Tensor) -> Tensor:
            with recorded(model, _part(images, index), seed):
                return present_frames(model, frames).argmax(1)

        return classify

    noisy = replace_until_failure(
        classifier(batch), batch.x, batch.y, T, batch.streams(seed, "frames")
    )
    tried = noisy.count > 0
    failed = (tried & ~noisy.correct).nonzero().flatten()
    part = _part(batch, failed)
    control = spare_frames(
        classifier(part),
        part.x,
        part.y,
        noisy.count[failed],
        T,
        part.streams(seed, "control"),
        _TRIES,
    )
    kept = control.correct.nonzero().flatten()
    trains.add(model, part, part.x.expand(T, *part.x.shape), "clean")
    trains.add(model, part, noisy.frames[:, failed], "failure")
    trains.add(model, _part(part, kept), control.frames[:, kept], "control")
    count = torch.where(tried & noisy.correct, T + 1, noisy.count)
    return count.cpu(), control.correct.cpu()


def _part(batch: Batch, index: Tensor) -> Batch:
    """Return some of the images of a batch."""
    return Batch(batch.index[index.cpu()], batch.x[index], batch.y[index])
