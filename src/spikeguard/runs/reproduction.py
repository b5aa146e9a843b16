"""reproduce(): train and attack all recipes of a folder at several seeds; one table, resumable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import Plugins
from spikeguard.config.schema import Recipe, eps_text, load_recipe
from spikeguard.config.yaml_files import recipe_names
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.statistics import OverSeeds, mean, over_seeds
from spikeguard.runs.printed_rows import PrintedNumber, printed_markdown, printed_numbers
from spikeguard.runs.recipe_training import train_recipe
from spikeguard.runs.result_names import find_result
from spikeguard.runs.run import Run
from spikeguard.storage.atomic_files import write_json, write_text
from spikeguard.storage.checkpoints import load
from spikeguard.storage.digests import is_sealed, weights_digest
from spikeguard.storage.run_folder import ATTACKS, CHECKPOINTS, RECIPE, RESULT
from spikeguard.system.processes import run_in_processes
from spikeguard.system.progress import TaskProgressCallback

__all__ = ["PAGE", "TABLE", "Entry", "Reproduced", "reproduce", "table"]

TABLE = "table.json"
PAGE = "table.md"


@dataclass(frozen=True)
class Entry:
    """One line of the table: a recipe at one radius.

    Attributes:
        recipe: Its name.
        suite: The attacks: name of a suite, or an attack line.
        eps: Radius of the threat set.
        samples: Test images.
        seeds: The seeds.
        scores: By attack, with "clean" and "worst_case".
        zero_gradient: Share of images without an input gradient, mean over the seeds.
        seconds: Time of training and of attacks, mean over the seeds.
        spikes: Spikes of an image, mean over the seeds; None where a result has none.
        operations: Synaptic operations of an image, accumulate and multiply-accumulate together.
    """

    recipe: str
    suite: str
    eps: float
    samples: int
    seeds: tuple[int, ...]
    scores: dict[str, OverSeeds]
    zero_gradient: float
    seconds: tuple[float, float]
    spikes: float | None = None
    operations: float | None = None


@dataclass(frozen=True)
class Reproduced:
    """Result of :func:`reproduce`.

    Attributes:
        entries: The table.
        diverged: One line for each run that diverged.
        printed: The printed numbers of the rows that the recipes name.
        empty: One line for each row of the table that has no numbers.
    """

    entries: tuple[Entry, ...]
    diverged: tuple[str, ...]
    printed: tuple[PrintedNumber, ...] = ()
    empty: tuple[str, ...] = ()


def reproduce(
    folder: str,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] = (),
    changes: Sequence[str] = (),
    jobs: int = 2,
    data_root: str | Path | None = None,
    plugins: Iterable[str] | Plugins = (),
    progress: TaskProgressCallback = lambda task, done, total, what: None,
) -> Reproduced:
    """Train and attack every recipe of a folder at every seed; finished runs are skipped.

    Each run has its own folder in ``out`` and its own process of one thread. Interrupted runs are
    resumed. The table of all finished runs is written to ``out``.

    Args:
        folder: Folder of recipes that ship with SpikeGuard, such as "mini".
        out: Folder of the runs, ``table.json`` and ``table.md``.
        seeds: At least one seed, none twice.
        only: Only recipes whose name contains one of these texts; all recipes when empty.
        changes: Changes to every recipe, such as ``train.epochs=1``.
        jobs: Runs at a time, >= 1.
        data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.
        plugins: Packages from which parts named ``package.module:Part`` may be imported.
        progress: Callback ``(task, done, total, what)``.

    Returns:
        The table of the recipes and radii with all ``seeds`` finished, and the runs that diverged.
        A run that diverges does not stop the other runs. A row that has no numbers, such as that of
        a run that diverged, is named in ``empty``.

    Raises:
        ValueError: If no recipe matches, a count is out of range, or a folder holds the run of
            another recipe.
    """
    names = _named(folder, only)
    if jobs < 1:
        raise ConfigError(f"jobs counts processes, >= 1, got {jobs}.")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"seeds are whole numbers >= 0, none twice, got {list(seeds)}.")
    out = Path(out)
    plans = [
        (load_recipe(name, [*changes, f"seed={seed}"], plugins=plugins), _place(out, name, seed))
        for seed in seeds
        for name in names
    ]
    open_ = [(recipe, path) for recipe, path in plans if not _finished(recipe, path)]
    work = [
        (recipe, path, data_root, f"[{place}/{len(open_)}] {path.name}")
        for place, (recipe, path) in enumerate(open_, start=1)
    ]
    messages = run_in_processes(_run, work, min(jobs, max(1, len(work))), progress)
    diverged = tuple(line for line in messages if line is not None)
    entries, printed = _tabulated(folder, out, seeds, changes, plugins)
    empty = tuple(line for recipe, path in plans for line in _empty(recipe, path))
    return Reproduced(tuple(entries), diverged, tuple(printed), empty)


def _named(folder: str, only: Sequence[str]) -> list[str]:
    """Return the recipes whose name contains one of the texts; each text must match a recipe."""
    names = recipe_names(f"{folder}/")
    if not names:
        folders = ", ".join(dict.fromkeys(name.partition("/")[0] for name in recipe_names()))
        raise ConfigError(f"{folder!r} is not a folder of recipes; folders: {folders}.")
    for text in only:
        if not any(text in name for name in names):
            raise ConfigError(
                f"--only: no recipe of {folder!r} has {text!r} in its name; see: spikeguard list "
                "recipes."
            )
    return [name for name in names if not only or any(text in name for text in only)]


def table(
    folder: str,
    out: str | Path,
    *,
    seeds: Sequence[int],
    changes: Sequence[str] = (),
    plugins: Iterable[str] | Plugins = (),
) -> list[Entry]:
    """Read the table of finished runs from their folders and write it to ``out``."""
    return _tabulated(folder, Path(out), seeds, changes, plugins)[0]


def _tabulated(
    folder: str,
    out: Path,
    seeds: Sequence[int],
    changes: Sequence[str],
    plugins: Iterable[str] | Plugins,
) -> tuple[list[Entry], list[PrintedNumber]]:
    entries: list[Entry] = []
    printed: list[PrintedNumber] = []
    for name in recipe_names(f"{folder}/"):
        if not all(_place(out, name, seed).is_dir() for seed in seeds):
            continue  # the changes need not be valid for recipes that were not run
        runs = [
            (
                load_recipe(name, [*changes, f"seed={seed}"], plugins=plugins),
                _place(out, name, seed),
            )
            for seed in seeds
        ]
        if all(_finished(recipe, path) for recipe, path in runs):
            entries += _entries(name, runs, tuple(seeds))
            printed += printed_numbers(name, runs)
    card = {"folder": folder, "entries": [asdict(entry) for entry in entries]}
    write_json(out / TABLE, {**card, "printed": [number.to_dict() for number in printed]})
    write_text(out / PAGE, "\n".join([_markdown(entries), *printed_markdown(printed)]))
    return entries, printed


def _run(
    recipe: Recipe,
    path: Path,
    data_root: str | Path | None,
    task: str,
    progress: TaskProgressCallback,
) -> str | None:
    """Train and attack one recipe; return a message if its training diverges."""
    from spikeguard.training.divergence import TrainingDiverged

    report = partial(progress, f"{task}, train")
    try:
        train_recipe(recipe, path, resume=True, data_root=data_root, progress=report)
    except TrainingDiverged as error:
        return f"{path}: {error}"
    run = Run.load(path, data_root=data_root, plugins=recipe.plugins)
    for suite, eps in _attacks(recipe):
        report = partial(progress, f"{task}, attack at {eps_text(eps)}")
        run.evaluate(suite, eps=eps, plan=recipe.evaluate, progress=report)
    return None


def _attacks(recipe: Recipe) -> Iterator[tuple[str, float]]:
    return ((suite, eps) for suite in recipe.evaluate.runs for eps in recipe.evaluate.eps)


def _place(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.partition('/')[2]}-s{seed}"


def _finished(recipe: Recipe, path: Path) -> bool:
    """Whether a folder holds this training and all its attacks.

    The folder of another recipe counts as unfinished: ``train_recipe`` reports the difference.
    """
    if not ((path / RECIPE).is_file() and (path / RESULT).is_file()):
        return False
    if load_recipe(path / RECIPE).training_part() != recipe.training_part():
        return False
    return all(_stem(recipe, path, *place) is not None for place in _attacks(recipe))


def _stem(recipe: Recipe, path: Path, suite: str, eps: float) -> Path | None:
    return find_result(path / ATTACKS, suite, eps, recipe.evaluate, recipe.plugins)


def _empty(recipe: Recipe, path: Path) -> Iterator[str]:
    """Name the results of a run that a row of the table lacks."""
    for suite, eps in _attacks(recipe):
        if not (path / RESULT).is_file() or _stem(recipe, path, suite, eps) is None:
            yield f"{path}: no result of {suite} at {eps_text(eps)}"


def _entries(
    name: str, runs: Sequence[tuple[Recipe, Path]], seeds: tuple[int, ...]
) -> Iterator[Entry]:
    trained = [_seconds(path) for _, path in runs]
    for suite, eps in _attacks(runs[0][0]):
        stems = [(recipe, path, _stem(recipe, path, suite, eps)) for recipe, path in runs]
        found = [_loaded(recipe, path, stem) for recipe, path, stem in stems if stem is not None]
        scores = {"clean": [each.clean for each in found]}
        scores |= {attack: [each.attacks[attack] for each in found] for attack in found[0].attacks}
        scores |= {"worst_case": [each.worst_case for each in found]}
        attacked = [sum(each.seconds.values()) for each in found]
        active = [each.activity for each in found if each.activity is not None]
        all_active = len(active) == len(found)
        yield Entry(
            recipe=name,
            suite=suite,
            eps=eps,
            samples=found[0].samples,
            seeds=seeds,
            scores={attack: over_seeds(each) for attack, each in scores.items()},
            zero_gradient=mean([each.zero_gradient for each in found]),
            seconds=(mean(trained), mean(attacked)),
            spikes=mean([each.spikes.mean for each in active]) if all_active else None,
            operations=mean([each.operations for each in active]) if all_active else None,
        )


def _seconds(path: Path) -> float:
    """Return the duration of a finished training."""
    try:
        card = json.loads((path / RESULT).read_text(encoding="utf-8"))
        is_sealed(card)
        return float(card["seconds"])
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path / RESULT}: damaged ({error}); move {path} away and reproduce again."
        ) from error


def _loaded(recipe: Recipe, path: Path, stem: Path) -> Evaluation:
    """Load a finished attack; reject one of other weights than those in the run folder."""
    found = Evaluation.load(stem)
    place = path / CHECKPOINTS / recipe.evaluate.checkpoint
    checkpoint = load(place)
    if checkpoint is None:
        raise ConfigError(f"{place}: there is no checkpoint.")
    weights = weights_digest(checkpoint.model)
    if found.identity is not None and found.identity["weights"] != weights:
        raise ConfigError(f"{stem}.json is of other weights; move it away and run again.")
    return found


def _markdown(entries: Sequence[Entry]) -> str:
    """Return the table as Markdown, with the attacks that all entries share."""
    shared = [
        attack
        for attack in (entries[0].scores if entries else ())
        if all(attack in entry.scores for entry in entries) and "/" not in attack
    ]
    head = ["recipe", "eps", "images", "attacks", *shared, "zero gradient"]
    head += ["spikes", "operations", "train / attack, s"]
    rows = [head, ["---"] * len(head)]
    rows += [
        [
            entry.recipe,
            eps_text(entry.eps),
            str(entry.samples),
            entry.suite,
            *(str(entry.scores[attack]) for attack in shared),
            f"{100 * entry.zero_gradient:.0f} %",
            *("" if n is None else f"{n:,.0f}" for n in (entry.spikes, entry.operations)),
            "{:.0f} / {:.0f}".format(*entry.seconds),
        ]
        for entry in entries
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    legend = (
        "Accuracies in %: mean [Student's 95 % interval over seeds] (each seed). Robust accuracies "
        "are upper bounds. Spikes and synaptic operations (ACs and MACs) are of a clean image. "
        "The uncertainty from the number of images is in table.json."
    )
    return "\n".join([*lines, "", legend, ""])
