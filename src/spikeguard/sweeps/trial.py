"""One trial of a sweep: train the recipe at a point at every seed, and measure the runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spikeguard.config.plugins import NO_PLUGINS, Plugins
from spikeguard.config.schema import Recipe, load_recipe
from spikeguard.runs.recipe_training import train_recipe
from spikeguard.runs.run import Run
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import sealed
from spikeguard.sweeps.metrics import parse_metric
from spikeguard.sweeps.space import Value, changes_of
from spikeguard.system.progress import TaskProgressCallback

__all__ = ["Plan", "Record", "label_of", "place_of"]

TRIAL = "trial.json"


@dataclass(frozen=True)
class Record:
    """The numbers of one point.

    Attributes:
        point: Value of each field.
        values: By metric, the mean over the seeds.
        seeds: By metric, the number of each seed.
        runs: The run folder of each seed, relative to the sweep's folder.
        seconds: Time of all seeds together, in the process that finished the point.
        cell: What a map shows of the point, see ``MapPlan``; empty in other sweeps.
    """

    point: Mapping[str, Value]
    values: Mapping[str, float]
    seeds: Mapping[str, Sequence[float]]
    runs: Sequence[str]
    seconds: float
    cell: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what follows from recipe and seeds as plain data: no time, and no cell."""
        left_out = ("seconds", "cell")
        return {name: value for name, value in asdict(self).items() if name not in left_out}


@dataclass(frozen=True)
class Plan:
    """What every trial of a sweep does.

    Args:
        recipe: Recipe by name or path.
        changes: Changes to it that hold at every point.
        seeds: Seeds of each point.
        metrics: Texts of the metrics that are measured, see ``parse_metric``.
        folder: Folder of the sweep.
        data_root: Folder of the data sets.
        plugins: Packages from which parts may be imported.
    """

    recipe: str
    changes: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    folder: Path
    data_root: Path | None = None
    plugins: Plugins = NO_PLUGINS

    def recipe_at(self, point: Mapping[str, Value], seed: int | None = None) -> Recipe:
        """Return the recipe at a point, with the first seed by default.

        Raises:
            ConfigError: If a field is unknown or rejects its value.
        """
        seed = self.seeds[0] if seed is None else seed
        changes = [*self.changes, *changes_of(point), f"seed={seed}"]
        return load_recipe(self.recipe, changes, plugins=self.plugins)

    def to_dict(self) -> dict[str, Any]:
        """Return what the numbers of every trial depend on, as plain data."""
        base = load_recipe(self.recipe, self.changes, plugins=self.plugins)
        return {
            "recipe": base.model_dump(mode="json", exclude={"seed"}, exclude_none=True),
            "seeds": list(self.seeds),
            "metrics": list(self.metrics),
        }

    def attacked(self, recipe: Recipe) -> int | None:
        """Return how many of the first test images are attacked; None for all."""
        return recipe.evaluate.limit

    def run(
        self,
        point: Mapping[str, Value],
        *,
        progress: TaskProgressCallback,
        on_epoch: Callable[[Path], None] | None = None,
    ) -> Record:
        """Train and measure a point; what its folder already holds is not done again.

        The record is also written to the folder of the point as ``trial.json``.

        Args:
            point: Value of each field.
            progress: Callback ``(task, done, total, what)``.
            on_epoch: Called with the run folder of the first seed whenever its training reports;
                may raise to stop it.
        """
        began = time.monotonic()
        place = self.folder / "trials" / place_of(point)
        numbers: dict[str, list[float]] = {text: [] for text in self.metrics}
        paths = [place / f"seed{seed}" for seed in self.seeds]
        for seed, path in zip(self.seeds, paths, strict=True):
            task = f"{label_of(point)} seed {seed}"
            watched = on_epoch if path == paths[0] else None
            run = self._trained(point, seed, path, task, progress, watched)
            for text in self.metrics:
                progress(task, 0, 1, text)
                numbers[text].append(parse_metric(text).of(run))
            progress(task, 1, 1, "measured")
        record = Record(
            point=dict(point),
            values={text: sum(each) / len(each) for text, each in numbers.items()},
            seeds=numbers,
            runs=[path.relative_to(self.folder).as_posix() for path in paths],
            seconds=time.monotonic() - began,
        )
        write_json(place / TRIAL, sealed(record.to_dict()))
        return record

    def _trained(
        self,
        point: Mapping[str, Value],
        seed: int,
        path: Path,
        task: str,
        progress: TaskProgressCallback,
        on_epoch: Callable[[Path], None] | None,
    ) -> Run:
        """Train one seed, or go on where its folder stands."""

        def report(done: int, total: int, what: str) -> None:
            progress(task, done, total, what)
            if on_epoch is not None:
                on_epoch(path)

        recipe = self.recipe_at(point, seed)
        train_recipe(recipe, path, resume=True, data_root=self.data_root, progress=report)
        return Run.load(path, data_root=self.data_root, plugins=self.plugins)


def label_of(point: Mapping[str, Value]) -> str:
    """Write a point in short.

    Example:
        >>> label_of({"model.neuron.v_th": 0.5, "train.epochs": 2})
        'v_th=0.5,epochs=2'
    """
    words = [f"{field.rpartition('.')[2]}={_short(value)}" for field, value in point.items()]
    return ",".join(words)


def place_of(point: Mapping[str, Value]) -> str:
    """Return the folder name of a point: its values in short, and a digest of them.

    Example:
        >>> place_of({"model.neuron.v_th": 0.5, "train.epochs": 2})[:18]
        'v_th=0.5,epochs=2-'
    """
    exact = json.dumps({field: repr(value) for field, value in point.items()}, sort_keys=True)
    digest = hashlib.sha256(exact.encode()).hexdigest()[:8]
    short = "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in label_of(point)[:80])
    return f"{short}-{digest}"


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
