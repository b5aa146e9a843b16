"""What the training of a recipe takes, before it starts: steps, memory, hours."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.config.builder import Built, build
from spikeguard.config.schema import Recipe
from spikeguard.system.durations import duration
from spikeguard.system.memory import size_text

if TYPE_CHECKING:
    from spikeguard.training.memory_plan import MemoryPlan

__all__ = ["TrainingPlan", "announce_memory", "plan_training"]

_TIMED = 4  # images of the step and of the reading that are timed


@dataclass(frozen=True)
class TrainingPlan:
    """The size and the cost of a training on this machine.

    Attributes:
        network: Name of the network.
        weights: Its trainable numbers.
        data: Name of the training images.
        images: Their number.
        shape: Channels, height and width of one.
        epochs: Passes over them.
        steps: Optimiser steps in all.
        memory: The planned peak; None where it cannot be measured.
        step_seconds: Seconds of a step per image, measured on four; None where it cannot be.
        reading_seconds: Seconds to decode one image in one process; None for images in memory.
        workers: Processes that decode.
    """

    network: str
    weights: int
    data: str
    images: int
    shape: tuple[int, int, int]
    epochs: int
    steps: int
    memory: MemoryPlan | None
    step_seconds: float | None
    reading_seconds: float | None
    workers: int

    def lines(self) -> list[tuple[str, str]]:
        """Return pairs of a name and one line."""
        found = [
            ("network", f"{self.network}, {self.weights:,} weights"),
            ("data", f"{self.data}, {self.images:,} images {' x '.join(map(str, self.shape))}"),
            ("steps", f"{self.steps:,} in {self.epochs:,} epochs"),
            ("memory", "unknown" if self.memory is None else str(self.memory)),
        ]
        if self.memory is not None and self.memory.remedy():
            found.append(("", f"more than is free: {self.memory.remedy()}"))
        if self.memory is None or self.step_seconds is None:
            found.append(("time", "unknown"))
        else:
            total = self.step_seconds * self.images * self.epochs
            found.append(
                (
                    "time",
                    f"at most about {duration(total)} on this {self.memory.device} "
                    f"(steps of {_TIMED} images; larger ones are faster for each image)",
                )
            )
        if self.reading_seconds is not None:
            reading = self.reading_seconds * self.images * self.epochs / max(1, self.workers)
            beside = f"in {self.workers} processes beside it" if self.workers else "added to it"
            found.append(("reading", f"about {duration(reading)} of decoding, {beside}"))
        return found

    def numbers(self) -> dict[str, Any]:
        """Return the plan as plain data; bytes, seconds, null where unknown."""
        memory = self.memory
        return {
            "weights": self.weights,
            "images": self.images,
            "epochs": self.epochs,
            "steps": self.steps,
            "peak_bytes": None if memory is None else round(memory.peak),
            "free_bytes": None if memory is None else memory.free,
            "device": None if memory is None else memory.device,
            "seconds_per_image": self.step_seconds,
            "reading_seconds_per_image": self.reading_seconds,
        }


def announce_memory(built: Built, announce: Callable[[str], None], *, ranks: int = 1) -> None:
    """Announce the planned peak of a training in one line; warn where it does not fit.

    Args:
        built: What is trained.
        announce: Called with the line.
        ranks: Number of processes that share each batch; the peak is that of one of them.

    Warns:
        MemoryPlanWarning: If the peak is more than what is free; it says what to change.
    """
    from spikeguard.training.memory_plan import MemoryPlanWarning, plan_memory

    plan = plan_memory(built.model, built.data, built.objective, built.options, ranks=ranks)
    announce(f"memory: {'unknown' if plan is None else plan}")
    if plan is not None and plan.free is not None and not plan.fits:
        warnings.warn(
            f"the planned peak of memory, {size_text(plan.peak)}, is more than the "
            f"{size_text(plan.free)} that are free on the {plan.device}: {plan.remedy()}.",
            MemoryPlanWarning,
            stacklevel=2,
        )


def plan_training(recipe: Recipe, data_root: str | Path | None = None) -> TrainingPlan:
    """Build a recipe, measure a small step, and return what its training takes.

    Args:
        recipe: The recipe, with the packages from which its parts may be imported.
        data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.

    Raises:
        ConfigError: If the recipe cannot be built, or its data are missing.
    """
    from spikeguard.data.photos.photo_set import PhotoSet
    from spikeguard.data.photos.reading_ahead import workers
    from spikeguard.training.memory_plan import plan_memory
    from spikeguard.training.trial_step import TrialStep

    built = build(recipe, data_root)
    model, data, options = built.model, built.data, built.options
    memory = plan_memory(model, data, built.objective, options)
    seconds = None
    if memory is not None:
        seconds = TrialStep(model, data, built.objective, options).seconds(_TIMED) / _TIMED
    photos = isinstance(data.train, PhotoSet)
    return TrainingPlan(
        network=str(recipe.model["name"]),
        weights=sum(p.numel() for p in model.parameters()),
        data=data.train.name,
        images=len(data.train),
        shape=data.train.shape,
        epochs=options.epochs,
        steps=options.epochs * math.ceil(len(data.train) / options.batch_size),
        memory=memory,
        step_seconds=seconds,
        reading_seconds=_reading(built) if photos else None,
        workers=workers() if photos else 0,
    )


def _reading(built: Built) -> float:
    """Return the seconds in which one process decodes one image, the faster of two."""
    took = []
    for _ in range(2):
        began = time.monotonic()
        x, _ = built.data.train.training_batch(slice(_TIMED), seed=0, epoch=0)
        took.append((time.monotonic() - began) / len(x))
    return min(took)
