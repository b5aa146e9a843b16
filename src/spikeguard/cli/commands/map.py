"""``spikeguard map``: accuracy, spikes, operations and robustness in a plane of two fields.

The module is imported with the command line, for ``map compare``, and imports what it needs later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.cli.options import Plugin, Repeated

if TYPE_CHECKING:
    from spikeguard.maps.operational_map import MapResult, OperationalMap

__all__ = ["compare", "map_", "map_of"]

STEPS = 1000


def map_(
    recipe: str,
    /,
    *changes: str,
    x: str,
    y: str,
    seeds: Repeated = None,
    steps: int = STEPS,
    robust: Repeated = None,
    robust_images: int | None = None,
    budget: str | None = None,
    jobs: int = 1,
    retry_failed: Annotated[bool, Parameter(negative="")] = False,
    storage: str | None = None,
    resume: Annotated[bool, Parameter(negative="")] = True,
    out: Path | None = None,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Train a recipe at many values of two fields, and map where it works and what it costs.

    A coarse grid is measured first, then the cells where class or accuracy changes and those around
    the most accurate one; another cell amid equal ones is not measured. Finished cells are kept:
    the same command goes on after an interruption, and several processes or machines may run it at
    once. Exit code 1 if a cell failed.

    Args:
        recipe: A YAML file, or a recipe that ships with SpikeGuard (see 'spikeguard list recipes').
        changes: Changes to the recipe, such as data.train_limit=5000.
        x: FIELD=low:high:n, FIELD=low:high:n:log or FIELD=a,b,c, such as neuron.tau=1.001:5:10, a
            time constant that sets decay and input_scale.
        y: The second field, such as neuron.v_th=0.01:3:10.
        seeds: Seeds of each cell, repeated or with commas; the recipe's when left out.
        steps: Optimiser steps of each training, rounded up to whole epochs. A cell that is
            silent or at chance is trained again with 4 and 16 times the steps before it is called
            so.
        robust: SUITE@EPS of an accuracy under attack, such as snn@8/255; repeated or with commas.
        robust_images: Attack only the first so many test images, such as 200; the clean accuracy is
            measured on all of them.
        budget: Begin no further cell after this time, such as 90s, 30m or 8h.
        jobs: Worker processes of one thread each.
        retry_failed: Run the cells that ended in an error again.
        storage: Database that several machines share, such as postgresql://host/name; a file in the
            folder when left out.
        resume: Go on with the map in the folder; always on.
        out: Folder of the map; runs/map-<recipe> when left out.
        json: Print the map as JSON and nothing else on standard output.
        plugin: Package whose parts the recipe may name as package.module:Part; repeated or with
            commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.cli.console import note, progress_board
    from spikeguard.maps.operational_map import draw_map

    of, seconds = map_of(
        recipe=recipe,
        changes=changes,
        x=x,
        y=y,
        seeds=seeds,
        steps=steps,
        robust=robust,
        robust_images=robust_images,
        budget=budget,
        storage=storage,
        out=out,
        plugin=plugin,
        data_root=data_root,
    )
    with progress_board() as board:
        found = draw_map(
            of,
            jobs=jobs,
            seconds=seconds,
            retry_failed=retry_failed,
            progress=board,
            announce=note,
        )
    _show(of, found, [each.text.removeprefix("robust:") for each in of.plan.robust])
    if json:
        write_result("map", {"folder": of.plan.folder, **vars(found)})
    return 1 if found.failed else 0


def map_of(
    *,
    recipe: str,
    changes: Sequence[str],
    x: str,
    y: str,
    seeds: Sequence[str] | None,
    steps: int,
    robust: Sequence[str] | None,
    robust_images: int | None,
    budget: str | None,
    storage: str | None,
    out: Path | None,
    plugin: Sequence[str] | None,
    data_root: Path | None,
    **_: object,
) -> tuple[OperationalMap, float | None]:
    """Return the map that the options of :func:`map_` describe, and its budget in seconds.

    Raises:
        ConfigError: If an option is wrong, or they do not fit together.
    """
    from spikeguard.cli.commands.sweep import seconds_of, seeds_of
    from spikeguard.cli.console import allowed_plugins, words
    from spikeguard.config.errors import ConfigError
    from spikeguard.config.schema import load_recipe
    from spikeguard.maps.operational_map import OperationalMap
    from spikeguard.maps.plan import MapPlan
    from spikeguard.sweeps.metrics import parse_metric
    from spikeguard.sweeps.space import parse_dimension

    plugins = allowed_plugins(plugin)
    first, second = parse_dimension(x), parse_dimension(y)
    under = list(dict.fromkeys(words(robust or [])))
    if robust and not under:
        raise ConfigError("--robust: name suite and radius, such as snn@8/255, got ''.")
    attacked = [f"robust:{text}" for text in under]
    metrics = ("accuracy", "spikes", "synops", "near_threshold", *attacked)
    for text in metrics:
        parse_metric(text)
    loaded = load_recipe(recipe, changes, plugins=plugins)
    folder = Path("runs") / f"map-{loaded.name.replace('/', '-')}" if out is None else out
    own = seeds_of(seeds, loaded.seed)
    plan = MapPlan(
        recipe,
        tuple(changes),
        own,
        metrics,
        folder,
        data_root,
        plugins,
        steps=steps,
        robust_images=robust_images,
    )
    return OperationalMap(plan, first, second, storage), seconds_of(budget)


def _show(of: OperationalMap, found: MapResult, under: Sequence[str]) -> None:
    from spikeguard.cli.commands.sweep import number_text
    from spikeguard.cli.console import say, table

    names = [axis.field for axis in (of.x, of.y)]
    rows = [_row(cell, names, under) for cell in found.cells]
    head = (*(name.rpartition(".")[2] for name in names), "class", "steps", "accuracy")
    table((*head, "spikes", "synops", *under), rows)
    say()
    classes = Counter(cell["class"] or "failed" for cell in found.cells)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
    say(f"{len(found.cells)} of {found.size} cells measured: {counts or 'none'}")
    say(f"page in {of.plan.folder / 'map.html'}, table in map.json and map.csv")
    if found.failed:
        say(f"{len(found.failed)} failed; run again with --retry-failed:")
    for cell in found.failed:
        at = ", ".join(f"{name}={number_text(cell['point'][name])}" for name in names)
        say(f"failed: {at}: {cell['error']}")
    if found.left:
        say(f"{found.left} or more left; the same command goes on with the rest")


def _row(cell: dict[str, Any], names: Sequence[str], under: Sequence[str]) -> tuple[str, ...]:
    from spikeguard.cli.commands.sweep import number_text

    at = [number_text(cell["point"][name]) for name in names]
    if "accuracy" not in cell:
        return (*at, cell["class"] or "failed", *[""] * (4 + len(under)))
    score, operations = cell["accuracy"], cell["operations"]
    return (
        *at,
        cell["class"],
        f"{cell['steps']:,}",
        f"{score['accuracy']:.1%} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]",
        number_text(cell["spikes"]["an_image"]),
        number_text(operations["effective_acs"] + operations["effective_macs"]),
        *(f"{cell['robust'][text]['accuracy']:.1%}" for text in under),
    )


def compare(first: Path, second: Path, /, *, out: Path | None = None, json: AsJson = False) -> int:
    """Print the difference of two maps over the same fields, cell by cell, and write its page.

    Args:
        first: Folder of a map.
        second: Folder of another one; its numbers less those of the first are printed.
        out: The page, such as difference.html; compare-<first>.html in the second folder when left
            out.
        json: Print the difference as JSON and nothing else on standard output.
    """
    from spikeguard.cli.commands.sweep import number_text
    from spikeguard.cli.console import say, table
    from spikeguard.config.errors import ConfigError
    from spikeguard.maps.comparison import compare as difference
    from spikeguard.maps.comparison import read_map
    from spikeguard.maps.comparison_page import comparison_page
    from spikeguard.storage.atomic_files import write_text

    cards = (read_map(first), read_map(second))
    found = difference(*cards)
    page = second / f"compare-{first.resolve().name}.html" if out is None else out
    if page.is_dir():
        raise ConfigError(f"--out: {page} is a folder; name a page, such as {page}/compare.html.")
    write_text(page, comparison_page(*cards, found, (first, second), page))
    names = list(found.cells[0].point)
    scores = list(dict.fromkeys(name for cell in found.cells for name in cell.accuracies))
    rows = [
        (
            *(number_text(cell.point[name]) for name in names),
            cell.classes[0] if len(set(cell.classes)) == 1 else " > ".join(cell.classes),
            *(_gap(cell.accuracies.get(name)) for name in scores),
            "" if cell.synops is None else f"x {cell.synops:.3g}",
        )
        for cell in found.cells
    ]
    table((*(name.rpartition(".")[2] for name in names), "class", *scores, "synops"), rows)
    say()
    say(f"{second} less {first}: {len(rows)} cells; accuracies in points with 95 % intervals")
    if any(found.only):
        say(f"left out: {found.only[0]} cells of the first alone, {found.only[1]} of the second")
    say(f"page in {page}")
    if json:
        write_result("map compare", {"first": first, "second": second, "page": page, **vars(found)})
    return 0


def _gap(it: tuple[float, float, float] | None) -> str:
    if it is None:
        return ""
    value, low, high = (100 * each for each in it)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
