"""run_demo(): train, attack, audit and analyse four networks; compare them in one report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config.schema import Recipe, eps_text, load_recipe
from spikeguard.runs.analyses import DEFAULT_ATTACK, Subject, analyse_once, plan_analyses
from spikeguard.runs.recipe_training import train_recipe
from spikeguard.runs.run import Run
from spikeguard.storage.folder_lock import locked
from spikeguard.storage.run_folder import AUDIT, REPORT
from spikeguard.system.processes import run_in_processes
from spikeguard.system.progress import TaskProgressCallback

if TYPE_CHECKING:
    from spikeguard.evaluation.result import Evaluation

__all__ = ["RECIPES", "DemoResult", "DemoRow", "run_demo"]

ANALYSES = ("potentials", "flips", "landscape")
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


@dataclass(frozen=True)
class DemoRow:
    """Results of one network.

    Attributes:
        name: Its recipe's title.
        results: Its evaluations, for each radius one of each suite of the recipe.
        near_threshold: Share of membrane potentials near the threshold.
        verdict: The audit's judgement on the bound at the largest radius.
    """

    name: str
    results: tuple[Evaluation, ...]
    near_threshold: float
    verdict: str

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii of the evaluations, in their order."""
        return tuple(dict.fromkeys(each.threat["eps"] for each in self.results))


@dataclass(frozen=True)
class DemoResult:
    """Rows of the demo and the path of the report."""

    rows: tuple[DemoRow, ...]
    report: Path


def run_demo(
    out: str | Path,
    *,
    quick: bool = False,
    workers: int = 2,
    progress: TaskProgressCallback = lambda task, done, total, what: None,
) -> DemoResult:
    """Run the demo; finished stages are loaded, not run again.

    The networks are small: each runs in one thread, ``workers`` of them at a time. The results do
    not depend on that number.

    Args:
        out: Folder for the run folders and the report.
        quick: Few images and epochs, to try every stage; the numbers mean nothing.
        workers: Number of processes, >= 1; 1 runs everything in this process.
        progress: Callback ``(task, done, total, what)``.

    Raises:
        ValueError: If workers is below 1.
        FolderLocked: If another process writes to ``out``.
        ConfigError: If ``out`` holds a demo of other recipes.
    """
    from spikeguard.reporting.renderer import report

    if workers < 1:
        raise ValueError(f"demo: workers counts processes, >= 1, got {workers}.")
    out = Path(out)
    recipes = [load_recipe(name, _QUICK if quick else ()) for name in RECIPES]
    jobs = [
        (recipe, out / Path(recipe.name).name, f"[{place}/{len(recipes)}] {recipe.name}")
        for place, recipe in enumerate(recipes, start=1)
    ]
    # The last recipes take longest: started first, they leave no worker idle at the end.
    order = -1 if workers > 1 else 1
    with locked(out):
        rows = run_in_processes(_row, jobs[::order], workers, progress)[::order]
        page = report(
            [path for _, path, _ in jobs],
            out / REPORT,
            title="SpikeGuard demo",
            command=f"spikeguard demo --out {out}" + (" --quick" if quick else ""),
        )
    return DemoResult(tuple(rows), page)


def _row(recipe: Recipe, path: Path, task: str, progress: TaskProgressCallback) -> DemoRow:
    """Train, attack, audit and analyse one network; load the stages stored in its folder."""
    train_recipe(recipe, path, resume=True, progress=partial(progress, f"{task}, train"))
    run = Run.load(path)
    results = [
        run.evaluate(
            suite, eps=eps, progress=partial(progress, f"{task}, attack at {eps_text(eps)}")
        )
        for eps in recipe.evaluate.eps
        for suite in recipe.evaluate.runs
    ]
    if not (path / AUDIT).exists():
        run.audit(budget="quick", progress=partial(progress, f"{task}, audit"))
    subject = Subject.of_run(run)
    planned = plan_analyses(subject, ANALYSES, attack=DEFAULT_ATTACK, limit=None)
    analyse_once(subject, planned, progress=partial(progress, f"{task}, analyse"))
    return DemoRow(
        name=recipe.title or recipe.name,
        results=tuple(results),
        near_threshold=run.membrane().near_threshold,
        verdict=run.stored_verdict(),
    )
