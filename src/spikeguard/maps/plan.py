"""MapPlan: what a cell of a map does: equal steps, more where nothing is learned, a record."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spikeguard.config.builder import load_data
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import Recipe, load_recipe
from spikeguard.maps.cell import CleanLook, joined, measured
from spikeguard.maps.classes import CellClass, classify
from spikeguard.reporting.renderer import report
from spikeguard.runs.recipe_training import train_recipe
from spikeguard.runs.run import Run
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import is_sealed, sealed
from spikeguard.sweeps.metrics import Metric, parse_metric
from spikeguard.sweeps.space import Value, changes_of
from spikeguard.sweeps.trial import Plan, Record, label_of, place_of
from spikeguard.system.progress import TaskProgressCallback
from spikeguard.training.options import TrainOptions

__all__ = ["LONGER", "REPORT", "MapPlan", "read_cell", "write_cell"]

LONGER = (1, 4, 16)  # multiples of the steps, tried in turn while a seed has learned nothing
_NOTHING: tuple[CellClass, ...] = ("silent", "at chance")
_CELL = "cell.json"
REPORT = "report.html"  # in the folder of a cell
_SIZES: dict[str, int] = {}  # training images by data section


@dataclass(frozen=True)
class MapPlan(Plan):
    """A plan whose points have equal optimiser steps, and record what a map shows.

    A point with a network that is silent or at chance is trained anew with 4 times the steps, then
    with 16 times: such a network can work later.

    Args:
        steps: Optimiser steps of each training, rounded up to whole epochs; None for the recipe's
            epochs.
        robust_images: Attack the first so many of the test images; None attacks all of them.
    """

    steps: int | None = None
    robust_images: int | None = None

    @property
    def robust(self) -> list[Metric]:
        """The attacks whose accuracy is recorded."""
        found = map(parse_metric, self.metrics)
        return [each for each in found if each.kind == "robust"]

    def recipe_at(
        self, point: Mapping[str, Value], seed: int | None = None, times: int = 1
    ) -> Recipe:
        """Return the recipe at a point, with the epochs that reach the steps ``times`` over.

        Raises:
            ConfigError: If a field is unknown or rejects its value.
        """
        seed = self.seeds[0] if seed is None else seed
        changes = [*self.changes, *changes_of(point), f"seed={seed}"]
        recipe = load_recipe(self.recipe, changes, plugins=self.plugins)
        epochs = times * self._epochs(recipe)
        return load_recipe(self.recipe, [*changes, f"train.epochs={epochs}"], plugins=self.plugins)

    def to_dict(self) -> dict[str, Any]:
        """Return what the numbers of every cell depend on, as plain data."""
        found = {**super().to_dict(), "steps": self.steps}
        return (
            found if self.robust_images is None else {**found, "robust_images": self.robust_images}
        )

    def attacked(self, recipe: Recipe) -> int | None:
        """Return how many of the first test images are attacked; None for all."""
        limits = (recipe.evaluate.limit, self.robust_images)
        return min((each for each in limits if each is not None), default=None)

    def run(
        self,
        point: Mapping[str, Value],
        *,
        progress: TaskProgressCallback,
        on_epoch: Callable[[Path], None] | None = None,
    ) -> Record:
        """Train and measure a cell; what its folder already holds is not done again.

        The cell is stored with the record, and in the folder of the point as ``cell.json``.

        Args:
            point: Value of each field.
            progress: Callback ``(task, done, total, what)``.
            on_epoch: Not used.
        """
        began = time.monotonic()
        for times in LONGER:
            runs = [self._trained_for(point, seed, times, progress) for seed in self.seeds]
            looks = [CleanLook.at(run) for run in runs]
            if not any(classify(look.behaviour) in _NOTHING for look in looks):
                break
        each = []
        for run, look, seed in zip(runs, looks, self.seeds, strict=True):
            task = f"{label_of(point)} seed{seed} measured"
            progress(task, 0, 1, "operations")
            attacked = self.attacked(run.recipe)
            each.append(measured(run, look, self.robust, attacked, partial(progress, task)))
            progress(task, 1, 1, "measured")
        cell = {
            "point": dict(point),
            **joined(each, [look.behaviour for look in looks]),
            "steps": looks[0].steps,
            "times": times,
            "runs": [run.path.relative_to(self.folder).as_posix() for run in runs],
            "seeds": {str(seed): card for seed, card in zip(self.seeds, each, strict=True)},
        }
        write_cell(self.folder, cell)
        folders = [run.path for run in runs]
        report(folders, folders[0].parent / REPORT, title=label_of(point))
        by_seed = {text: [_value(card, text) for card in each] for text in self.metrics}
        return Record(
            point=dict(point),
            values={text: sum(values) / len(values) for text, values in by_seed.items()},
            seeds=by_seed,
            runs=cell["runs"],
            seconds=time.monotonic() - began,
            cell=cell,
        )

    def _epochs(self, recipe: Recipe) -> int:
        """Return the epochs that reach the steps.

        Raises:
            ConfigError: If the recipe may stop earlier.
        """
        train = recipe.train
        if train.get("patience") is not None:
            raise ConfigError(
                "train.patience: stops early, and all cells of a map have equal steps; "
                "write train.patience= to leave it out."
            )
        if self.steps is None:
            return int(train.get("epochs", TrainOptions.epochs))
        name = f"{self.data_root} {recipe.data.model_dump_json()}"
        if name not in _SIZES:
            _SIZES[name] = len(load_data(recipe, self.data_root).train)
        batch = int(train.get("batch_size", TrainOptions.batch_size))
        return math.ceil(self.steps / math.ceil(_SIZES[name] / batch))

    def _trained_for(
        self, point: Mapping[str, Value], seed: int, times: int, progress: TaskProgressCallback
    ) -> Run:
        """Train one seed, or go on where its folder stands."""
        recipe, root = self.recipe_at(point, seed, times), self.data_root
        name = f"seed{seed}" if times == 1 else f"seed{seed}-{times}x"
        path = self.folder / "trials" / place_of(point) / name
        task = f"{label_of(point)} {name}"
        train_recipe(recipe, path, resume=True, data_root=root, progress=partial(progress, task))
        progress(task, 1, 1, "trained")
        return Run.load(path, data_root=root, plugins=self.plugins)


def write_cell(folder: Path, cell: Mapping[str, Any]) -> None:
    """Store the record of a cell in the folder of its point."""
    place = folder / "trials" / place_of(cell["point"])
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / _CELL, sealed(dict(cell)))


def read_cell(folder: Path, point: Mapping[str, Value]) -> dict[str, Any]:
    """Return the stored record of a cell.

    Raises:
        ConfigError: If it is missing or damaged.
    """
    file = folder / "trials" / place_of(point) / _CELL
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        is_sealed(found)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: missing or damaged ({error}); make the map anew.") from error
    found.pop("checksum", None)
    return found


def _value(card: Mapping[str, Any], text: str) -> float:
    """Return a metric of one seed."""
    operations = card["operations"]
    found: float
    if text == "accuracy":
        found = card["accuracy"]["accuracy"]
    elif text == "spikes":
        found = card["spikes"]["an_image"]["mean"]
    elif text == "synops":
        found = sum(operations[name]["mean"] for name in ("effective_acs", "effective_macs"))
    elif text == "near_threshold":
        found = card["near_threshold"]
    else:
        found = card["robust"][text.removeprefix("robust:")]["accuracy"]
    return found
