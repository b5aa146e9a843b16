"""The demonstration: four small networks trained, attacked, audited and compared in one report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config import Recipe, eps_text, load_recipe
from spikeguard.runs import AUDIT, REPORT, Run, Update, train_recipe

if TYPE_CHECKING:
    from spikeguard.evaluation import Score

__all__ = ["RECIPES", "DemoResult", "DemoRow", "run_demo"]

RECIPES = ("demo/vanilla", "demo/tgo", "demo/at", "demo/at-tgo")

_QUICK = (
    "data.train_limit=300",
    "data.test_limit=50",
    "model.width=4",
    "model.hidden=16",
    "train.epochs=2",
    "evaluate.limit=50",
)

Stage = Callable[[str], AbstractContextManager[Update]]


@dataclass(frozen=True)
class DemoRow:
    """What came of one network.

    Attributes:
        name: Its recipe's title.
        clean: Accuracy on clean test images.
        worst: Worst-case accuracy at each radius.
        near_threshold: Share of membrane potentials near the threshold.
        zero_gradient: Share of test images with a zero input gradient.
        verdict: The audit's status.
    """

    name: str
    clean: float
    worst: tuple[Score, ...]
    near_threshold: float
    zero_gradient: float
    verdict: str


@dataclass(frozen=True)
class DemoResult:
    """The demonstration's rows, the radii they were attacked at, and the report."""

    rows: tuple[DemoRow, ...]
    eps: tuple[float, ...]
    report: Path


@contextmanager
def _quiet(task: str) -> Iterator[Update]:
    yield lambda done, total, what: None


def run_demo(out: str | Path, *, quick: bool = False, progress: Stage = _quiet) -> DemoResult:
    """Run the demonstration, or what is left of it: finished stages are read back.

    Args:
        out: Folder for one run folder a recipe and the report.
        quick: Few images and epochs, to see every stage work; the numbers mean nothing.
        progress: Opened for every stage with its name; gives a callback (done, total, what).

    Raises:
        ConfigError: If ``out`` holds a demonstration with other recipes.
    """
    from spikeguard.reporting import report

    out = Path(out)
    recipes = [load_recipe(name, _QUICK if quick else ()) for name in RECIPES]
    paths = [out / Path(recipe.name).name for recipe in recipes]
    rows = []
    for place, (recipe, path) in enumerate(zip(recipes, paths, strict=True), start=1):

        def stage(verb: str, number: int = place, name: str = recipe.name) -> str:
            return f"[{number}/{len(RECIPES)}] {name}, {verb}"

        with progress(stage("train")) as update:
            train_recipe(recipe, path, resume=True, progress=update)
        rows.append(_examined(recipe, Run.load(path), lambda verb: progress(stage(verb))))
    page = report(
        paths, out / REPORT, title="SpikeGuard demo", command=f"spikeguard demo --out {out}"
    )
    return DemoResult(tuple(rows), recipes[0].evaluate.eps, page)


def _examined(recipe: Recipe, run: Run, progress: Stage) -> DemoRow:
    """Attack, audit and measure one run; what its folder holds already is read back."""
    suite = recipe.evaluate.suite[0]
    results = []
    for eps in recipe.evaluate.eps:
        with progress(f"attack at eps {eps_text(eps)}") as update:
            results.append(run.evaluate(suite, eps=eps, progress=update))
    stored = run.path / AUDIT
    if not stored.exists():
        with progress("audit") as update:
            run.audit(progress=update)
    return DemoRow(
        name=recipe.title or recipe.name,
        clean=results[0].clean.accuracy,
        worst=tuple(result.worst_case for result in results),
        near_threshold=run.membrane().near_threshold,
        zero_gradient=results[0].zero_gradient,
        verdict=json.loads(stored.read_text(encoding="utf-8"))["status"],
    )
