"""``spikeguard sweep``: a grid or a search over recipe fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from spikeguard.cli.console import (
    Plugin,
    allowed_plugins,
    note,
    progress_board,
    say,
    table,
    words,
)
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.cli.options import Repeated
from spikeguard.config.errors import ConfigError

if TYPE_CHECKING:
    from spikeguard.sweeps.engine import Sweep
    from spikeguard.sweeps.space import Dimension
    from spikeguard.sweeps.table import Outcome

__all__ = ["number_text", "seconds_of", "seeds_of", "sweep", "sweep_of"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def sweep(
    recipe: str,
    /,
    *fields: str,
    maximise: Repeated = None,
    minimise: Repeated = None,
    measure: Repeated = None,
    sampler: Literal["grid", "random", "tpe", "nsga2", "nsga3", "cmaes"] | None = None,
    trials: int | None = None,
    prune: Annotated[bool, Parameter(negative="")] = False,
    seeds: Repeated = None,
    budget: str | None = None,
    jobs: int = 1,
    retry_failed: Annotated[bool, Parameter(negative="")] = False,
    resume: Annotated[bool, Parameter(negative="")] = True,
    storage: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Train and measure a recipe at many values of its fields, and print the table.

    Finished points are kept: the same command goes on after an interruption, and several processes
    or machines may run it at once. Exit code 1 if a point failed.

    Args:
        recipe: A YAML file, or a recipe that ships with SpikeGuard (see 'spikeguard list recipes').
        fields: FIELD=low:high:n, n values from low to high; FIELD=low:high:n:log, spaced by equal
            factors; or FIELD=a,b,c. For example neuron.v_th=0.5:1.5:5
            objective.tgo.lambda_max=0.2,0.4. A field with one value is a change to the recipe.
        maximise: Metrics to maximise, such as accuracy or robust:snn@8/255; repeated or with commas
            (see 'spikeguard list metrics').
        minimise: Metrics to minimise.
        measure: Further metrics to print.
        sampler: grid runs every combination; the others search and need --trials. When left out:
            grid, or nsga2 with fewer --trials than the grid has points.
        trials: Number of points of a search, which takes any value of a range.
        prune: Stop a point whose validation accuracy is below the median of the finished ones at
            the same epoch; for a search with one metric to maximise.
        seeds: Seeds of each point, repeated or with commas; the recipe's when left out.
        budget: Begin no further point after this time, such as 90s, 30m or 8h.
        jobs: Worker processes of one thread each.
        retry_failed: Run the points that failed again.
        resume: Go on with the sweep in the folder; always on.
        storage: Database that several machines share, such as postgresql://host/name; a file in the
            folder when left out.
        seed: Seed of the search.
        out: Folder of the sweep; runs/sweep-<recipe> when left out.
        json: Print the table as JSON and nothing else on standard output.
        plugin: Package whose parts the recipe may name as package.module:Part; repeated or with
            commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.sweeps.engine import sweep as run

    of, seconds = sweep_of(
        recipe=recipe,
        fields=fields,
        maximise=maximise,
        minimise=minimise,
        measure=measure,
        sampler=sampler,
        trials=trials,
        prune=prune,
        seeds=seeds,
        budget=budget,
        storage=storage,
        seed=seed,
        out=out,
        plugin=plugin,
        data_root=data_root,
    )
    folder = of.plan.folder
    with progress_board() as board:
        found = run(
            of,
            jobs=jobs,
            seconds=seconds,
            retry_failed=retry_failed,
            progress=board,
            announce=note,
        )
    _show(found, of.plan.metrics, folder)
    if json:
        records = [{**each.to_dict(), "seconds": each.seconds} for each in found.records]
        write_result("sweep", {"folder": folder, **vars(found), "records": records})
    return 1 if found.failed else 0


def sweep_of(
    *,
    recipe: str,
    fields: Sequence[str],
    maximise: Sequence[str] | None,
    minimise: Sequence[str] | None,
    measure: Sequence[str] | None,
    sampler: str | None,
    trials: int | None,
    prune: bool,
    seeds: Sequence[str] | None,
    budget: str | None,
    storage: str | None,
    seed: int,
    out: Path | None,
    plugin: Sequence[str] | None,
    data_root: Path | None,
    **_: object,
) -> tuple[Sweep, float | None]:
    """Return the sweep that the options of :func:`sweep` describe, and its budget in seconds.

    Raises:
        ConfigError: If an option is wrong, or they do not fit together.
    """
    from spikeguard.config.schema import load_recipe
    from spikeguard.sweeps.engine import Sweep
    from spikeguard.sweeps.metrics import parse_metric
    from spikeguard.sweeps.trial import Plan

    plugins = allowed_plugins(plugin)
    changes, dimensions = _fields_of(fields)
    best, least, more = (words(given or []) for given in (maximise, minimise, measure))
    metrics = {text: parse_metric(text) for text in dict.fromkeys([*best, *least, *more])}
    loaded = load_recipe(recipe, changes, plugins=plugins)
    folder = Path("runs") / f"sweep-{loaded.name.replace('/', '-')}" if out is None else out
    plan = Plan(
        recipe,
        tuple(changes),
        seeds_of(seeds, loaded.seed),
        tuple(metrics),
        folder,
        data_root,
        plugins,
    )
    of = Sweep(
        plan,
        dimensions,
        maximise=tuple(metrics[text] for text in dict.fromkeys(best)),
        minimise=tuple(metrics[text] for text in dict.fromkeys(least)),
        sampler=sampler or _sampler(dimensions, trials),
        trials=trials,
        storage=storage,
        seed=seed,
        prune=prune,
    )
    return of, seconds_of(budget)


def seconds_of(text: str | None) -> float | None:
    """Read a duration such as 90s, 30m or 8h; None for no limit.

    Raises:
        ConfigError: If it is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"--budget: a time such as 90s, 30m or 8h, got {text!r}.")
    return float(found[1]) * _UNITS[found[2]]


def _fields_of(fields: Sequence[str]) -> tuple[list[str], tuple[Dimension, ...]]:
    """Return the changes to the recipe, and the fields that vary."""
    from spikeguard.sweeps.space import changes_of, parse_dimension

    changes, dimensions = [], []
    for text in fields:
        if text.partition("=")[1:] == ("=", ""):  # restores the default
            changes.append(text)
            continue
        each = parse_dimension(text)
        if len(each.values) == 1:
            changes += changes_of({each.field: each.values[0]})
        else:
            dimensions.append(each)
    return changes, tuple(dimensions)


def _sampler(dimensions: Sequence[Dimension], trials: int | None) -> str:
    size = 1
    for each in dimensions:
        size *= len(each.values)
    return "nsga2" if trials is not None and trials < size else "grid"


def seeds_of(given: Sequence[str] | None, own: int) -> tuple[int, ...]:
    """Read the seeds of each point; the recipe's own where none are given.

    Raises:
        ConfigError: If one is no whole number >= 0, or is given twice.
    """
    if not given:
        return (own,)
    try:
        found = tuple(int(word) for word in words(given))
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        shown = ",".join(given)
        raise ConfigError(f"--seeds: whole numbers >= 0, none twice, got {shown!r}.")
    return found


def _show(found: Outcome, metrics: Sequence[str], folder: Path) -> None:
    if found.records:
        names = list(found.records[0].point)
        rows = [
            (
                *(number_text(record.point[name]) for name in names),
                *(number_text(record.values[text]) for text in metrics),
                "*" if place in found.best else "",
            )
            for place, record in enumerate(found.records)
        ]
        table((*(name.rpartition(".")[2] for name in names), *metrics, "best"), rows)
        say()
        if len(found.best) > 1:
            say("*: no other point is at least as good in every metric and better in one.")
    say(f"{len(found.records)} of {found.total} points finished; table in {folder / 'sweep.json'}")
    for stop in found.stopped:
        reason = f"validation accuracy {stop.val_accuracy:.1%} after epoch {stop.epoch}"
        say(f"stopped early: {_point(stop.point)}: {reason}")
    if found.failed:
        say(f"{len(found.failed)} failed; run again with --retry-failed:")
    for failure in found.failed:
        say(f"failed: {_point(failure.point)}: {failure.error}")
    if found.left:
        say(f"{found.left} left; the same command goes on with the rest")


def number_text(value: Any) -> str:
    """Write a number of a table with four digits, or a word."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def _point(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={number_text(value)}" for name, value in point.items())
