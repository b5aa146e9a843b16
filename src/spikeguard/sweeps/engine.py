"""sweep(): run a grid or a search over recipe fields in worker processes that share one queue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from spikeguard.config.builder import load_data
from spikeguard.config.errors import ConfigError
from spikeguard.data.datasets import DATASETS
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import content_digest, sealed
from spikeguard.sweeps.cost import require_points, require_reachable, time_points
from spikeguard.sweeps.file_locks import has_locks
from spikeguard.sweeps.metrics import Metric, parse_metric
from spikeguard.sweeps.queue import Queue, State
from spikeguard.sweeps.samplers import require_sampler
from spikeguard.sweeps.space import MOST, Dimension, Value, grid
from spikeguard.sweeps.study import JOURNAL, database_errors, open_study, require_database
from spikeguard.sweeps.table import Outcome, outcome
from spikeguard.sweeps.trial import Plan
from spikeguard.sweeps.worker import run_one, work
from spikeguard.system.crew import Crew
from spikeguard.system.durations import duration
from spikeguard.system.processes import one_thread
from spikeguard.system.progress import TaskProgressCallback

__all__ = ["Sweep", "require_runnable", "sweep"]

TABLE = "sweep.json"
_POLL = 0.5  # seconds between two looks at the queue


@dataclass(frozen=True)
class Sweep:
    """A sweep over recipe fields.

    Args:
        plan: What a trial does.
        dimensions: The space, one dimension a field.
        maximise: Metrics to maximise.
        minimise: Metrics to minimise.
        sampler: "grid" for all combinations, or how a search chooses points: "random", "tpe",
            "nsga2", "nsga3" or "cmaes".
        trials: Number of points of a search; a grid has its own.
        storage: URL of a database; None for a journal file in the folder.
        seed: Seed of the sampler.
        prune: Stop a trial whose validation accuracy is below the median of the finished trials at
            the same epoch.

    Raises:
        ConfigError: If these do not fit together.
    """

    plan: Plan
    dimensions: tuple[Dimension, ...]
    maximise: tuple[Metric, ...] = ()
    minimise: tuple[Metric, ...] = ()
    sampler: str = "grid"
    trials: int | None = None
    storage: str | None = None
    seed: int = 0
    prune: bool = False

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise ConfigError("a sweep varies at least one field, such as neuron.v_th=0.5:1.5:5.")
        fields = [each.field for each in self.dimensions]
        if len(set(fields)) < len(fields):
            raise ConfigError("a field is given twice; write all its values in one dimension.")
        for field in {change.partition("=")[0].strip() for change in self.plan.changes} & {*fields}:
            raise ConfigError(f"{field}: is a change to the recipe and varies too; leave one out.")
        if "seed" in fields:
            raise ConfigError("seed: is no field of a sweep; write --seeds 0,1,2.")
        if not self.objectives:
            raise ConfigError("name a metric to --maximise or --minimise, such as accuracy.")
        if set(self.maximise) & set(self.minimise):
            raise ConfigError("a metric is to be maximised and minimised; leave one out.")
        require_sampler(self.sampler, self.dimensions, len(self.objectives))
        if self.trials is not None and self.trials < 1:
            raise ConfigError(f"--trials counts points, >= 1, got {self.trials}.")
        if self.seed < 0:
            raise ConfigError(f"--seed: a whole number >= 0, got {self.seed}.")
        if self.sampler != "grid" and self.trials is None:
            raise ConfigError(f"--trials: say how many points {self.sampler} tries.")
        if self.sampler == "grid" and self.trials is not None and self.trials < self.size:
            raise ConfigError(
                f"--trials: the grid has {self.size} points, got {self.trials}; use fewer values, "
                "or --sampler nsga2 to search."
            )
        if self.sampler == "grid" and self.size > MOST:
            raise ConfigError(
                f"a grid has at most {MOST:,} points, got {self.size:,}; write fewer values, or "
                "search them with spikeguard sweep --sampler nsga2 --trials 100."
            )
        if self.prune and (self.sampler == "grid" or self.minimise or len(self.maximise) != 1):
            raise ConfigError(
                "--prune: compares validation accuracies in a search with one metric to maximise; "
                "leave it out for a grid or for other metrics."
            )

    @property
    def size(self) -> int:
        """Number of points."""
        whole = math.prod(len(each.values) for each in self.dimensions)
        return whole if self.sampler == "grid" or self.trials is None else self.trials

    @property
    def objectives(self) -> tuple[Metric, ...]:
        """What is optimised."""
        return (*self.maximise, *self.minimise)

    @property
    def signs(self) -> dict[str, int]:
        """By objective, 1 to maximise it and -1 to minimise it."""
        up = {each.text: 1 for each in self.maximise}
        return up | {each.text: -1 for each in self.minimise}

    def to_dict(self) -> dict[str, Any]:
        """Return what the study is, as plain data."""
        return {
            **self.plan.to_dict(),
            "fields": [asdict(each) for each in self.dimensions],
            "maximise": [each.text for each in self.maximise],
            "minimise": [each.text for each in self.minimise],
            "sampler": self.sampler,
            "sampler_seed": self.seed,
            "prune": self.prune,
            **self._own_images,
        }

    @cached_property
    def _own_images(self) -> dict[str, str]:
        """Digests of the user's own images, for each value of a field of ``data``.

        A named data set does not change, so nothing is stored of its images. Of training images on
        disk the digest is that of a training, which reads no file.
        """
        first = {each.field: each.values[0] for each in self.dimensions}
        varied = [each for each in self.dimensions if each.field.startswith("data.")]
        points = [{**first, each.field: value} for each in varied for value in each.values]
        recipes = {
            (made := self.plan.recipe_at(at)).data.model_dump_json(): made
            for at in points or [first]
        }
        found: dict[str, list[bytes]] = {}
        for recipe in recipes.values():
            if recipe.data.name in DATASETS:
                continue
            data = load_data(recipe, self.plan.data_root)
            for part in ("train", "val", "test"):
                images = getattr(data, part)
                if images is not None:
                    digest = images.digest if part == "train" else images.content_digest
                    what = f"{part} images of {recipe.data.name}"
                    found.setdefault(what, []).append(digest.encode())
        return {what: content_digest(*digests) for what, digests in found.items()}

    def queue(self) -> Queue:
        """Open the queue, or create it."""
        folder = self.plan.folder
        study = open_study(
            folder.resolve().name,
            self.to_dict(),
            storage=self.storage,
            folder=folder,
            directions=["maximize" if sign > 0 else "minimize" for sign in self.signs.values()],
            prune=self.prune,
        )
        return Queue(
            study,
            self.dimensions,
            folder=folder,
            sampler=self.sampler,
            seed=self.seed,
            trials=None if self.sampler == "grid" else self.trials,
            remote=self.storage is not None or not has_locks(folder),
        )


def sweep(
    of: Sweep,
    *,
    points: Sequence[Mapping[str, Value]] | None = None,
    jobs: int = 1,
    seconds: float | None = None,
    retry_failed: bool = False,
    progress: TaskProgressCallback = lambda task, done, total, what: None,
    announce: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run a sweep, or go on with it, until every point is finished or has failed.

    Several processes and machines may run the same sweep at once, in a shared folder or with a
    database; each returns when all points are done. Any of them may be killed: its points are begun
    again where their run folders stand. The outcome is also written to ``sweep.json`` in the
    folder, equal for any number of workers.

    Args:
        of: The sweep.
        points: Points to enqueue in this order, those that are known are skipped; the whole grid
            when left out. A search enqueues none.
        jobs: Worker processes of one thread each on this machine.
        seconds: Begin no point after so many seconds; None for no limit.
        retry_failed: Begin the points that failed again.
        progress: Callback ``(task, done, total, what)``.
        announce: Called with lines of text: the cost before the start.

    Raises:
        ConfigError: If a point is rejected by the recipe, the database does not answer, or the
            budget is too short for one point, before anything is written; or if the folder or the
            database holds another sweep.
    """
    metrics = require_runnable(of, jobs)
    if points is None:
        points = grid(of.dimensions) if of.sampler == "grid" else []
    require_database(of.storage)
    until = None if seconds is None else time.time() + seconds
    _say_cost(of, len(points) or of.size, metrics, jobs, seconds, announce)
    with database_errors(of.storage), of.queue() as queue:
        queue.add(points)
        if retry_failed:
            queue.retry_failed()
        run = _run_here if jobs == 1 else _run_crew
        state = run(of, queue, jobs, until, progress)
    found = outcome(state, [each.field for each in of.dimensions], of.signs)
    write_json(of.plan.folder / TABLE, sealed({"sweep": of.to_dict(), **found.to_dict()}))
    return found


def require_runnable(of: Sweep, jobs: int = 1) -> list[Metric]:
    """Reject a sweep that could not start, and return its metrics; nothing is trained or written.

    Raises:
        ConfigError: If ``jobs`` is below 1, a point is rejected by the recipe, data are missing, or
            a metric cannot be measured.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs counts processes, >= 1, got {jobs}.")
    metrics = [*of.objectives, *_further(of)]
    compared = [parse_metric("val_accuracy")] if of.prune else []
    require_points(of.plan, of.dimensions, [*metrics, *compared])
    return metrics


def _further(of: Sweep) -> list[Metric]:
    """Return the metrics that are measured and not optimised."""
    known = {each.text for each in of.objectives}
    return [parse_metric(text) for text in of.plan.metrics if text not in known]


def _say_cost(
    of: Sweep,
    points: int,
    metrics: Sequence[Metric],
    jobs: int,
    seconds: float | None,
    announce: Callable[[str], None],
) -> None:
    """Announce the cost of a new sweep, and whether a budget reaches all of it."""
    if (of.plan.folder / JOURNAL).exists():
        return
    ends = [{each.field: each.values[end] for each in of.dimensions} for end in (0, -1)]
    cost = time_points(of.plan, ends, metrics)
    if seconds is not None:
        require_reachable(cost, seconds)
    announce(cost.text(points, jobs))
    if seconds is None:
        return
    reached = int(seconds * jobs / cost.training)
    if reached < points:
        announce(
            f"the budget of {duration(seconds)} reaches about {reached:,} of {points:,} points; "
            "the same command goes on with the rest"
        )


def _run_here(
    of: Sweep, queue: Queue, jobs: int, until: float | None, progress: TaskProgressCallback
) -> State:
    """Run the points in this process."""
    with one_thread():
        while True:
            state = queue.tidy()
            _report(state, progress)
            if _over(until) or not (state.open or state.running):
                return state
            if not run_one(of, queue, progress):
                time.sleep(_POLL)  # other processes run the last points


def _run_crew(
    of: Sweep, queue: Queue, jobs: int, until: float | None, progress: TaskProgressCallback
) -> State:
    """Run the points in worker processes; start another one for a worker that was killed."""
    with Crew(work, (of, until), progress) as crew:
        while True:
            state = queue.tidy()
            _report(state, progress)
            over = _over(until)
            if not crew.live and (over or not (state.open or state.running)):
                return state
            if state.open and not over:
                for _ in range(min(jobs, state.open + state.running) - crew.live):
                    crew.start()
            crew.poll(_POLL)


def _over(until: float | None) -> bool:
    return until is not None and time.time() >= until


def _report(state: State, progress: TaskProgressCallback) -> None:
    total = state.done + state.running + state.open
    progress("sweep", state.done, total, "points")
