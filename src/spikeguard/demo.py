"""The demonstration: four small networks trained, attacked, audited and compared in one report."""

from __future__ import annotations

import json
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spikeguard.config import Recipe, eps_text, load_recipe
from spikeguard.recipe_training import train_recipe
from spikeguard.run_files import AUDIT, REPORT
from spikeguard.runs import Run

if TYPE_CHECKING:
    from spikeguard.scores import Evaluation

__all__ = ["RECIPES", "DemoResult", "DemoRow", "Progress", "run_demo", "side_by_side"]

RECIPES = ("demo/vanilla", "demo/tgo", "demo/at", "demo/at-tgo")

_QUICK = (
    "data.train_limit=600",
    "data.test_limit=60",
    "model.width=8",
    "model.hidden=64",
    "train.epochs=4",
    "evaluate.limit=40",
    "evaluate.eps=[0.1]",
)

Progress = Callable[[str, int, int, str], None]
Message = tuple[str, int, int, str]
R = TypeVar("R")


@dataclass(frozen=True)
class DemoRow:
    """What came of one network.

    Attributes:
        name: Its recipe's title.
        results: Its evaluation at each radius.
        near_threshold: Share of membrane potentials near the threshold.
        verdict: The audit's status.
    """

    name: str
    results: tuple[Evaluation, ...]
    near_threshold: float
    verdict: str


@dataclass(frozen=True)
class DemoResult:
    """The demonstration's rows and the report."""

    rows: tuple[DemoRow, ...]
    report: Path


def run_demo(
    out: str | Path,
    *,
    quick: bool = False,
    workers: int = 2,
    progress: Progress = lambda task, done, total, what: None,
) -> DemoResult:
    """Run the demonstration, or what is left of it: finished stages are read back.

    The networks are small, so each is computed by one thread and ``workers`` of them side by side;
    the results do not depend on how many.

    Args:
        out: Folder for one run folder a recipe and the report.
        quick: Few images and epochs, to see every stage work; the numbers mean nothing.
        workers: Processes, >= 1; 1 stays in this process.
        progress: Called with (task, done, total, what).

    Raises:
        ValueError: If workers is below 1.
        ConfigError: If ``out`` holds a demonstration with other recipes.
    """
    from spikeguard.reporting import report

    if workers < 1:
        raise ValueError(f"demo: workers counts processes, >= 1, got {workers}.")
    out = Path(out)
    recipes = [load_recipe(name, _QUICK if quick else ()) for name in RECIPES]
    jobs = [
        (recipe, out / Path(recipe.name).name, f"[{place}/{len(recipes)}] {recipe.name}")
        for place, recipe in enumerate(recipes, start=1)
    ]
    # The last recipes take longest; started first, they leave no worker idle at the end.
    order = -1 if workers > 1 else 1
    rows = side_by_side(_row, jobs[::order], workers, progress)[::order]
    page = report(
        [path for _, path, _ in jobs],
        out / REPORT,
        title="SpikeGuard demo",
        command=f"spikeguard demo --out {out}" + (" --quick" if quick else ""),
    )
    return DemoResult(tuple(rows), page)


def _row(recipe: Recipe, path: Path, task: str, progress: Progress) -> DemoRow:
    """Train, attack, audit and measure one network; what its folder holds already is read back."""
    train_recipe(recipe, path, resume=True, progress=partial(progress, f"{task}, train"))
    run = Run.load(path)
    results = [
        run.evaluate(
            suite, eps=eps, progress=partial(progress, f"{task}, attack at {eps_text(eps)}")
        )
        for eps in recipe.evaluate.eps
        for suite in recipe.evaluate.suite
    ]
    stored = path / AUDIT
    if not stored.exists():
        run.audit(progress=partial(progress, f"{task}, audit"))
    return DemoRow(
        name=recipe.title or recipe.name,
        results=tuple(results),
        near_threshold=run.membrane().near_threshold,
        verdict=json.loads(stored.read_text(encoding="utf-8"))["status"],
    )


def side_by_side(
    work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], workers: int, progress: Progress
) -> list[R]:
    """Do jobs in processes of one thread each and pass on what they tell.

    Args:
        work: A function of a module, called as ``work(*job, progress)``.
        jobs: Arguments that can be pickled; they are started in this order.
        workers: Processes, >= 1; 1 stays in this process, with one thread.
        progress: Called with (task, done, total, what).

    Returns:
        What ``work`` returned, in the order of the jobs. The first error ends all others.
    """
    if workers == 1:
        with _one_thread():
            return [work(*job, progress) for job in jobs]
    context = multiprocessing.get_context("spawn")
    told: Queue[Message] = context.Queue()
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(told,))
    try:
        futures = [pool.submit(_in_worker, work, *job) for job in jobs]
        while not all(future.done() for future in futures) and not _failed(futures):
            try:
                progress(*told.get(timeout=0.2))
            except queue.Empty:
                continue
        failed = _failed(futures)
        return [future.result() for future in ([failed] if failed else futures)]
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()  # what a run has done is on the disk
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _failed(futures: Iterable[Future[R]]) -> Future[R] | None:
    """Return the first job that ended in an error."""
    return next((f for f in futures if f.done() and f.exception() is not None), None)


_told: Queue[Message] | None = None  # of a worker process: where it tells how far it is


def _start_worker(told: Queue[Message]) -> None:
    """Set up a worker: one thread, and Ctrl-C is left to the process that started it."""
    import torch

    global _told
    _told = told
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _in_worker(work: Callable[..., R], *job: Any) -> R:
    def tell(stage: str, done: int, total: int, what: str) -> None:
        assert _told is not None
        _told.put((stage, done, total, what))

    return work(*job, tell)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread inside the block, as the workers do."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
