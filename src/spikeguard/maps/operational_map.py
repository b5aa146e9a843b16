"""draw_map(): measure the cells of a map, coarse first, and write its table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spikeguard.config.errors import ConfigError
from spikeguard.maps.efficiency import eta_max, eta_minmax
from spikeguard.maps.page import PAGE, map_page
from spikeguard.maps.plan import MapPlan, read_cell
from spikeguard.maps.schedule import Place, Seen, missing
from spikeguard.maps.table import cells_csv
from spikeguard.storage.atomic_files import write_text
from spikeguard.storage.digests import CHECKSUM, sealed
from spikeguard.sweeps.engine import Sweep, sweep
from spikeguard.sweeps.metrics import parse_metric
from spikeguard.sweeps.space import Dimension, Value
from spikeguard.sweeps.table import Outcome
from spikeguard.system.progress import TaskProgressCallback

__all__ = ["MapResult", "OperationalMap", "draw_map"]

TABLE, CSV = "map.json", "map.csv"
_STEPS = ("train.epochs", "train.patience")


@dataclass(frozen=True)
class OperationalMap:
    """A map over two recipe fields.

    Args:
        plan: What a cell does.
        x: The first field and its values.
        y: The second.
        storage: URL of a database that several machines share; None for a journal file in the
            folder.

    Raises:
        ConfigError: If a field has one value, both are one field, or a field changes the number of
            epochs.
    """

    plan: MapPlan
    x: Dimension
    y: Dimension
    storage: str | None = None

    def __post_init__(self) -> None:
        for option, axis in (("--x", self.x), ("--y", self.y)):
            if len(axis.values) < 2:
                raise ConfigError(f"{option}: {axis.field} needs 2 values or more.")
            if axis.field in _STEPS:
                raise ConfigError(
                    f"{option}: {axis.field} changes the steps, which are equal in all cells; "
                    "write --steps."
                )
        if self.x.field == self.y.field:
            raise ConfigError(f"--x and --y: two fields, got {self.x.field} twice.")
        if self.plan.steps is not None and self.plan.steps < 1:
            raise ConfigError(f"--steps: optimiser steps of a cell, >= 1, got {self.plan.steps}.")
        images = self.plan.robust_images
        if images is not None and images < 1:
            raise ConfigError(f"--robust-images: counts test images, >= 1, got {images}.")
        if images is not None and not self.plan.robust:
            raise ConfigError(
                "--robust-images: counts the images that --robust attacks; write --robust snn@0.1."
            )

    @property
    def sweep(self) -> Sweep:
        """The sweep that measures the cells."""
        robust = (each for each in self.plan.metrics if each.startswith("robust:"))
        best = tuple(parse_metric(text) for text in ("accuracy", *robust))
        return Sweep(
            self.plan,
            (self.x, self.y),
            maximise=best,
            minimise=(parse_metric("synops"),),
            storage=self.storage,
        )

    def point(self, place: Place) -> dict[str, Value]:
        """Return the values of the fields at a place."""
        x, y = place
        return {self.x.field: self.x.values[x], self.y.field: self.y.values[y]}

    def place(self, point: Mapping[str, Value]) -> Place:
        """Return the place of a point."""
        x, y = (point[axis.field] for axis in (self.x, self.y))
        return self.x.values.index(x), self.y.values.index(y)


@dataclass(frozen=True)
class MapResult:
    """What a map has measured.

    Attributes:
        cells: Records of the measured cells, in the order of the axes. A cell whose training
            diverged has the class "not converged" and an ``error``; one that failed otherwise has
            the class None.
        size: Number of cells of the whole grid.
        left: Number of cells that the schedule has asked for and that are not measured.
    """

    cells: list[dict[str, Any]]
    size: int
    left: int

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The cells that ended in an error, other than a training that diverged."""
        return [cell for cell in self.cells if cell["class"] is None]


def draw_map(
    of: OperationalMap,
    *,
    jobs: int = 1,
    seconds: float | None = None,
    retry_failed: bool = False,
    progress: TaskProgressCallback = lambda task, done, total, what: None,
    announce: Callable[[str], None] = lambda line: None,
) -> MapResult:
    """Measure a map, or go on with it: the coarse grid, then the cells where the map changes.

    Several processes and machines may draw the same map at once, in a shared folder or with a
    database. The folder gets ``map.json``, one cell a line, and ``map.csv``. Cells inside a block
    whose corners have one class and one accuracy are not measured, but for those on the way from
    the most accurate corner to a peak.

    Args:
        of: The map.
        jobs: Worker processes of one thread each.
        seconds: Begin no cell after so many seconds; None for no limit.
        retry_failed: Begin the cells that ended in an error again, a training that diverged too.
        progress: Callback ``(task, done, total, what)``.
        announce: Called with lines of text: the cost before the start.

    Raises:
        ConfigError: As :func:`spikeguard.sweeps.sweep`.
    """
    until = None if seconds is None else time.monotonic() + seconds
    nx, ny = len(of.x.values), len(of.y.values)
    wanted = missing(nx, ny, {})
    cells: list[dict[str, Any]] | None = None
    lines: list[str] = [
        f"{nx} x {ny} cells: {len(wanted)} first, then those where class or accuracy changes and "
        "those around the most accurate one; "
        "a cell that is silent or at chance is trained again with 4 and 16 times the steps, "
        "21 times the cost"
    ]

    def say(line: str) -> None:
        for each in (*lines, line):
            announce(each)
        lines.clear()

    while wanted:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0 and cells is not None:
            break
        found = sweep(
            of.sweep,
            points=[of.point(place) for place in wanted],
            jobs=jobs,
            seconds=left,
            retry_failed=retry_failed and cells is None,
            progress=progress,
            announce=say,
        )
        cells = _cells(of, found)
        _write(of, MapResult(cells, nx * ny, found.left))
        if found.left:
            return MapResult(cells, nx * ny, found.left)
        wanted = missing(nx, ny, {of.place(cell["point"]): Seen.of(cell) for cell in cells})
    result = MapResult(cells or [], nx * ny, len(wanted))
    _write(of, result)
    return result


def _cells(of: OperationalMap, found: Outcome) -> list[dict[str, Any]]:
    """Return the records of the cells, with the efficiencies among them."""
    cells = [
        {
            **(record.cell or read_cell(of.plan.folder, record.point)),
            "seconds": round(record.seconds, 3),
        }
        for record in found.records
    ]
    accuracy = [cell["accuracy"]["accuracy"] for cell in cells]
    spikes = [cell["spikes"]["an_image"] for cell in cells]
    etas = zip(eta_max(accuracy, spikes), eta_minmax(accuracy, spikes), strict=True)
    for cell, (by_max, by_minmax) in zip(cells, etas, strict=True):
        cell |= {"eta_max": by_max, "eta_minmax": by_minmax}
    for failure in found.failed:
        diverged = failure.error.startswith("TrainingDiverged")
        kind = "not converged" if diverged else None
        cells.append({"point": dict(failure.point), "class": kind, "error": failure.error})
    return sorted(cells, key=lambda cell: of.place(cell["point"]))


def _write(of: OperationalMap, result: MapResult) -> None:
    """Write map.json, one cell a line, and map.csv."""
    head = {
        "map": {**of.plan.to_dict(), "x": asdict(of.x), "y": asdict(of.y)},
        "size": result.size,
        "left": result.left,
    }
    card = json.loads(json.dumps({**head, "cells": result.cells}))
    checksum = sealed(card)[CHECKSUM]
    lines = [f"{json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    cells = ",\n".join(json.dumps(cell, allow_nan=False) for cell in result.cells)
    text = "\n".join(["{", *lines, '"cells": [', cells, "],", f'"{CHECKSUM}": "{checksum}"', "}"])
    write_text(of.plan.folder / TABLE, f"{text}\n")
    write_text(of.plan.folder / CSV, cells_csv(result.cells))
    write_text(of.plan.folder / PAGE, map_page(card, of.plan.folder))
