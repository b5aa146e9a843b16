"""A worker of a sweep: it takes points from the queue until none is open or the time is over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.storage.run_folder import METRICS
from spikeguard.sweeps.queue import Queue, signs_of_life
from spikeguard.sweeps.study import database_errors
from spikeguard.system.progress import TaskProgressCallback

if TYPE_CHECKING:
    from optuna.trial import Trial

    from spikeguard.sweeps.engine import Sweep

__all__ = ["run_one", "work"]


class _Stopped(Exception):
    """The trial is below the median of the others."""


def work(of: Sweep, until: float | None, progress: TaskProgressCallback) -> None:
    """Run points until none is open or the time is over; the work of one process."""
    with database_errors(of.storage), of.queue() as queue:
        while (until is None or time.time() < until) and run_one(of, queue, progress):
            pass


def run_one(of: Sweep, queue: Queue, progress: TaskProgressCallback) -> bool:
    """Run one point; return whether there was one.

    An error of the trial is stored in it. A trial that is interrupted is given up.
    """
    trial = queue.claim()
    if trial is None:
        return False
    try:
        with signs_of_life(trial):
            watch = _watch(trial) if of.prune else None
            point = {each.field: trial.params[each.field] for each in of.dimensions}
            record = of.plan.run(point, progress=progress, on_epoch=watch)
    except _Stopped:
        queue.stop(trial)
    except Exception as error:
        queue.fail(trial, f"{type(error).__name__}: {' '.join(str(error).split())}")
    except BaseException:  # interrupted
        queue.release(trial)
        raise
    else:
        queue.finish(trial, asdict(record), [record.values[each.text] for each in of.objectives])
    return True


def _watch(trial: Trial) -> Callable[[Path], None]:
    """Return a function that reports the validation accuracy of each epoch of a run folder."""
    reported: set[int] = set()

    def watch(path: Path) -> None:
        try:
            lines = (path / METRICS).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:  # the first epoch
            return
        if len(lines) == len(reported):
            return
        for line in map(json.loads, lines):
            if line["epoch"] not in reported:
                reported.add(line["epoch"])
                trial.report(line["val_accuracy"], line["epoch"])
                if trial.should_prune():
                    raise _Stopped

    return watch
