"""``spikeguard analyse``: measure why a network is robust or not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from spikeguard.cli.commands.attack import FrameworkName, ReadoutName, Steps
from spikeguard.cli.console import Plugin, allowed_plugins, note, numbers, progress, say, table
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.config.errors import ConfigError

if TYPE_CHECKING:
    from spikeguard.analysis.base import Analysis
    from spikeguard.analysis.measurement import Measurement
    from spikeguard.config.plugins import Plugins
    from spikeguard.runs.analyses import Subject

__all__ = ["analyse"]


def analyse(
    *words: str,
    model: str | None = None,
    weights: Path | None = None,
    T: Steps = None,
    framework: FrameworkName | None = None,
    readout: ReadoutName | None = None,
    data: str | None = None,
    out: Path | None = None,
    attack: str | None = None,
    eps: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    norm: Literal["linf", "l2", "l1"] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Measure potentials, gradients, landscapes, synchrony, activity and cost of networks.

    Results are stored in RUN/analysis, one .npz and one .csv file each; 'spikeguard report' shows
    them. A stored result is loaded, so an interrupted command continues where it stopped. The
    tables of analyses are printed where they are named.

    Args:
        words: Run folders, then analyses with their settings (see 'spikeguard list analyses'):
            runs/demo/at runs/demo/tgo "landscape points=31". All analyses when none is named.
        model: Factory of a foreign model; this and the next six are as for 'spikeguard attack'.
        weights: Its state dict.
        T: Time steps of the network.
        framework: Framework of the network.
        readout: How outputs over time become logits.
        data: Images of the foreign model; as for 'spikeguard attack'.
        out: Folder for the results of the foreign model; runs/<model> when left out.
        attack: The attack of analyses that apply one: its name in a suite, such as pgd20, or an
            attack with its settings, such as "fgsm"; pgd7 when left out.
        eps: Radius of its threat set; the largest of the run's recipe when left out.
        norm: Norm of the threat set; the recipe's when left out, linf for a foreign model.
        limit: Number of test images of each analysis, instead of its own.
        seed: Seed of all random numbers; the run's seed when left out, 0 for --model.
        json: Print the results as JSON and nothing else on standard output.
        plugin: Package whose parts the recipe or --attack may name as package.module:Part; repeated
            or with commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.analysis.registry import ANALYSES
    from spikeguard.config.analysis_lines import takes_attack
    from spikeguard.runs.analyses import DEFAULT_ATTACK, analyse_once, plan_analyses

    radius = _radius(eps)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: a number of images >= 1, got {limit}.")
    if seed is not None and seed < 0:
        raise ConfigError(f"--seed: a whole number >= 0, got {seed}.")
    plugins = allowed_plugins(plugin, data)
    runs, lines = _sorted(words)
    named, lines = bool(lines), lines or list(ANALYSES)
    foreign: dict[str, object] = {"weights": weights, "T": T, "framework": framework}
    foreign |= {"readout": readout, "data": data, "out": out}
    if model is None and any(value is not None for value in foreign.values()):
        given = next(name for name, value in foreign.items() if value is not None)
        raise ConfigError(f"--{given} goes with --model; a run has its own.")
    if (not runs) == (model is None):
        raise ConfigError("name at least one run folder, such as runs/demo/tgo, or --model.")
    subjects = (
        [_of_run(run, radius, norm, seed, data_root, plugins) for run in runs]
        if model is None
        else [_foreign(model, foreign, radius, norm, seed, data_root, plugins)]
    )
    used = attack or DEFAULT_ATTACK
    planned = [plan_analyses(each, lines, attack=used, limit=limit) for each in subjects]
    for option, value in (("attack", attack), ("eps", eps), ("norm", norm)):
        if value is not None and not any(map(takes_attack, lines)):
            raise ConfigError(f"--{option}: {lines[0].split()[0]} applies no attack; leave it out.")
    found: dict[str, dict[str, Measurement]] = {}
    for subject, analyses in zip(subjects, planned, strict=True):
        with progress(f"analyse {subject.path}") as update:
            found[str(subject.path)] = analyse_once(
                subject, analyses, progress=update, announce=note
            )
    _show(found, planned, tables=named)
    if not named:
        say()
        say("tables: name an analysis, such as zeros; charts: spikeguard report")
    for subject in subjects:
        if found[str(subject.path)]:
            say(f"results in {subject.path / 'analysis'}")
    if json:
        write_result("analyse", {"results": {run: _plain(each) for run, each in found.items()}})
    return 0


def _radius(text: str | None) -> float | None:
    if text is None:
        return None
    found = numbers("--eps", [text])
    if len(found) != 1:
        raise ConfigError(f"--eps: an analysis has one radius, got {text!r}.")
    return found[0]


def _sorted(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Tell run folders from analyses: a word that begins with the name of an analysis is one."""
    from spikeguard.analysis.registry import ANALYSES

    runs, lines = [], []
    for word in words:
        name = word.split()[0] if word.split() else ""
        if name in ANALYSES:
            lines.append(word)
        elif name and (Path(word).exists() or "/" in word):
            runs.append(Path(word))
        else:
            near = difflib.get_close_matches(name, ANALYSES, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{word!r} is neither a run folder nor an analysis.{hint} Analyses: "
                f"{', '.join(ANALYSES)}."
            )
    twice = next((run for run in runs if runs.count(run) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice; name every run folder once.")
    return runs, lines


def _of_run(
    path: Path,
    eps: float | None,
    norm: str | None,
    seed: int | None,
    data_root: Path | None,
    plugins: Plugins,
) -> Subject:
    from spikeguard.runs.analyses import Subject
    from spikeguard.runs.run import Run

    run = Run.load(path, data_root=data_root, plugins=plugins)
    return Subject.of_run(run, eps=eps, norm=norm, seed=seed)


def _foreign(
    model: str,
    options: Mapping[str, object],
    eps: float | None,
    norm: str | None,
    seed: int | None,
    data_root: Path | None,
    plugins: Plugins,
) -> Subject:
    from spikeguard.config.schema import EvaluateSection
    from spikeguard.runs.analyses import Subject
    from spikeguard.runs.foreign_model import load_foreign_model

    found = load_foreign_model(model, **options, data_root=data_root, plugins=plugins)  # type: ignore[arg-type]
    if found.preflight is not None:
        note(str(found.preflight))
    plan = EvaluateSection()
    return Subject(
        found.path,
        found.model,
        found.data.test,
        max(plan.eps) if eps is None else eps,
        norm or plan.norm,
        seed or 0,
        plugins,
    )


def _show(
    found: Mapping[str, Mapping[str, Measurement]],
    planned: Sequence[Mapping[str, Analysis]],
    *,
    tables: bool,
) -> None:
    """Print the result of every analysis, all runs together, and its table if it is asked for."""
    labels = _labels(list(found))
    for plans in zip(*(each.items() for each in planned), strict=True):
        name, analysis = plans[0]
        measured = {  # the name of a result contains the run's eps
            labels[run]: each[own]
            for (run, each), (own, _) in zip(found.items(), plans, strict=True)
            if own in each
        }
        if not measured:
            continue
        say(f"{analysis.title} ({name})")
        say(analysis.result(measured))
        if not tables:
            continue
        shown = analysis.table(measured)
        table(shown.head, shown.rows)
        if shown.caption:
            say(shown.caption)
        say()


def _labels(runs: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each path that tells the runs apart."""
    parts = {run: Path(run).parts for run in runs}
    size = 1
    while len({each[-size:] for each in parts.values()}) < len(runs):
        size += 1
    return {run: "/".join(each[-size:]) for run, each in parts.items()}


def _plain(found: Mapping[str, Measurement]) -> dict[str, object]:
    """Return measurements as plain data; long arrays are in the files alone."""
    return {
        name: {
            "settings": dict(each.settings),
            "samples": each.samples,
            "axes": {axis: labels.tolist() for axis, labels in each.axes.items()},
            "quantities": {
                key: {
                    "axes": list(q.axes),
                    "unit": q.unit,
                    "about": q.about,
                    "values": q.values.tolist() if q.values.size <= 10_000 else None,
                }
                for key, q in each.quantities.items()
            },
        }
        for name, each in found.items()
    }
