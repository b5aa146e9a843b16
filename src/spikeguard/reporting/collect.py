"""What a run folder holds, in frozen dataclasses; a damaged file is an error that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from spikeguard.analysis.membrane import MembraneHistogram
from spikeguard.auditing.findings import Finding, FindingStatus, Verdict, VerdictStatus
from spikeguard.config import ConfigError, Recipe, load_recipe
from spikeguard.reporting.evidence import Evidence, evidence
from spikeguard.runs import ATTACKS, AUDIT, ENVIRONMENT, MEMBRANE, METRICS, RECIPE, RESULT
from spikeguard.scores import Score

__all__ = ["CASCADE", "Attacked", "Epoch", "Network", "Trained", "collect"]

CASCADE = " + all cheaper of "  # between an attack and its suite, where it is no attack alone

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.jsonl; accuracies in [0, 1]."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    terms: Mapping[str, float]


@dataclass(frozen=True)
class Trained:
    """What result.json holds."""

    best_epoch: int
    val_accuracy: float
    epochs: int
    parameters: int
    train_samples: int
    val_samples: int
    seconds: float
    objective: str


@dataclass(frozen=True)
class Attacked:
    """One result in ``attacks/``.

    Attributes:
        name: The file's name without its suffix.
        suite: The suite it was made with, or "" where the file does not say.
        norm: Norm of the threat set.
        eps: Its radius, in pixel units.
        draws: Noise draws every image was scored on.
        eot: Gradients averaged in every attack step.
        limit: The attacked images are the first so many; None is all test images.
        clean: Accuracy without an attack.
        attacks: Accuracy under each attack. One that is not the plain attack has a name that says
            so: in a cascade "pgd10 + all cheaper of quick", with a bfloat16 search "pgd10 in bf16".
        widths: For each attack: the half-widths or names of the surrogates it put in the place of
            the network's own; empty for an attack with the own one.
        worst_case: Accuracy when every image meets the attack that hurts it most.
        zero_gradient: Share of images whose input gradient is exactly zero.
    """

    name: str
    suite: str
    norm: str
    eps: float
    draws: int
    eot: int
    limit: int | None
    clean: Score
    attacks: Mapping[str, Score]
    widths: Mapping[str, tuple[str, ...]]
    worst_case: Score
    zero_gradient: float


@dataclass(frozen=True)
class Network:
    """One run folder. What was not run is empty or None.

    Attributes:
        path: The run folder.
        label: What the report calls it: the recipe's title, made unique.
        recipe: What was trained.
        recipe_text: The recipe as it is written in the folder.
        trained: The outcome of the training.
        environment: Versions, machine, command.
        epochs: The training curves.
        attacked: Results of attacks.
        audited: The audit's verdict.
        evidence: The curves that the audit kept.
        membrane: Where the membrane potentials lie.
    """

    path: Path
    label: str
    recipe: Recipe
    recipe_text: str
    trained: Trained
    environment: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    attacked: tuple[Attacked, ...]
    audited: Verdict | None
    evidence: Evidence
    membrane: MembraneHistogram | None


def collect(runs: Sequence[str | Path]) -> tuple[Network, ...]:
    """Read run folders.

    Args:
        runs: Folders of finished trainings, at least one, none twice.

    Raises:
        ValueError: If a folder is no finished run, or a file is missing or damaged: one line that
            names it.
    """
    paths = [Path(run) for run in runs]
    if not paths:
        raise ValueError("report: name at least one run folder.")
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"report: {path} is named twice; name every run folder once.")
    recipes = [_recipe(path) for path in paths]
    titles = [recipe.title or recipe.name for recipe in recipes]
    titles = [
        t if titles.count(t) == 1 else f"{t} ({p.name})" for t, p in zip(titles, paths, strict=True)
    ]
    titles = [t if titles.count(t) == 1 else f"{t} [{i}]" for i, t in enumerate(titles, start=1)]
    return tuple(map(_network, paths, titles, recipes))


def _network(path: Path, label: str, recipe: Recipe) -> Network:
    audit, membrane = path / AUDIT, path / MEMBRANE
    trained = _trained(path / RESULT)
    audited = _audited(audit) if audit.exists() else None
    results = sorted((path / ATTACKS).glob("*.json")) if (path / ATTACKS).is_dir() else []
    return Network(
        path=path,
        label=label,
        recipe=recipe,
        recipe_text=(path / RECIPE).read_text(encoding="utf-8"),
        trained=trained,
        environment=_json(path / ENVIRONMENT),
        epochs=_epochs(path / METRICS, trained.epochs),
        attacked=tuple(map(_attacked, results)),
        audited=audited,
        evidence=Evidence() if audited is None else _evidence(audit, audited),
        membrane=MembraneHistogram.load(membrane) if membrane.exists() else None,
    )


def _recipe(path: Path) -> Recipe:
    if not path.is_dir():
        raise ValueError(f"{path}: no such run folder.")
    if not (path / RECIPE).is_file():
        raise ValueError(f"{path}: not a run folder, it holds no {RECIPE}.")
    try:
        return load_recipe(path / RECIPE)
    except ConfigError as error:
        raise ValueError(f"{path / RECIPE}: {error}") from error


def _trained(path: Path) -> Trained:
    card = _json(path)
    with _reading(path):
        return Trained(
            best_epoch=int(card["best_epoch"]),
            val_accuracy=float(card["val_accuracy"]),
            epochs=int(card["epochs"]),
            parameters=int(card["parameters"]),
            train_samples=int(card["train_samples"]),
            val_samples=int(card["val_samples"]),
            seconds=float(card["seconds"]),
            objective=str(card["objective"]),
        )


def _epochs(path: Path, epochs: int) -> tuple[Epoch, ...]:
    found = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        with _reading(path, f"line {number}: "):
            card = json.loads(line)
            found.append(
                Epoch(
                    epoch=int(card["epoch"]),
                    train_loss=float(card["train_loss"]),
                    train_accuracy=float(card["train_accuracy"]),
                    val_loss=float(card["val_loss"]),
                    val_accuracy=float(card["val_accuracy"]),
                    terms={str(name): float(value) for name, value in card["terms"].items()},
                )
            )
    if len(found) != epochs:
        raise ValueError(f"{path}: damaged: it holds {len(found)} of {epochs} epochs.")
    return tuple(found)


def _attacked(path: Path) -> Attacked:
    card = _json(path)
    with _reading(path):
        limit, suite = card.get("limit"), str(card.get("suite", ""))
        precision = str(card.get("precision", "32"))
        mark = f" in {precision}" if precision != "32" else ""
        mark += f"{CASCADE}{suite or path.stem}" if card.get("cascade", False) else ""
        attacks = {f"{name}{mark}": entry for name, entry in card["attacks"].items()}
        return Attacked(
            name=path.stem,
            suite=suite,
            norm=str(card["threat"]["norm"]),
            eps=float(card["threat"]["eps"]),
            draws=int(card["draws"]),
            eot=int(card.get("eot", 1)),
            limit=None if limit is None else int(limit),
            clean=_score(card["clean"]),
            attacks={str(name): _score(entry) for name, entry in attacks.items()},
            widths={str(n): tuple(_swapped(entry["settings"])) for n, entry in attacks.items()},
            worst_case=_score(card["worst_case"]),
            zero_gradient=float(card["zero_gradient"]),
        )


def _score(entry: Mapping[str, Any]) -> Score:
    accuracy, low, high = (float(entry[key]) for key in ("accuracy", "low", "high"))
    score = Score(accuracy, low, high, int(entry["n"]))
    ordered = (
        0 <= score.low <= score.accuracy + _ROUNDING and score.accuracy <= score.high + _ROUNDING
    )
    if not (ordered and score.accuracy <= 1 and score.high <= 1 and score.n >= 1):
        raise ValueError(
            f"an accuracy lies in [0, 1] and in its interval, n >= 1; got {dict(entry)}"
        )
    return score


def _swapped(settings: Any) -> Iterator[str]:
    """Find the surrogates that an attack puts in the place of the network's own."""
    if isinstance(settings, Mapping):
        if settings.get("kind") == "SwapSurrogate":
            other = settings["surrogate"]
            named = isinstance(other, Mapping)
            yield str(other.get("width", other.get("kind"))) if named else f"{other} x own"
        for inner in settings.values():
            yield from _swapped(inner)


def _audited(path: Path) -> Verdict:
    card = _json(path)
    with _reading(path):
        return Verdict(
            status=_one_of(card["status"], get_args(VerdictStatus)),
            findings=tuple(map(_finding, card["findings"])),
            sentence=str(card["sentence"]),
            upper_bound=card.get("upper_bound"),
            settings=dict(card.get("settings") or {}),
        )


def _finding(entry: Mapping[str, Any]) -> Finding:
    words: dict[str, Any] = {key: str(entry[key]) for key in ("code", "title", "measured")}
    words |= {key: str(entry.get(key, "")) for key in ("threshold", "meaning", "remedy")}
    kept = entry.get("evidence") or {}
    if not isinstance(kept, Mapping):
        raise TypeError(f"evidence is an object, got {type(kept).__name__}")
    status = _one_of(entry["status"], get_args(FindingStatus))
    return Finding(status=status, evidence=kept, **words)


def _evidence(path: Path, verdict: Verdict) -> Evidence:
    with _reading(path, "evidence: "):
        return evidence(verdict)


def _one_of(word: Any, known: tuple[Any, ...]) -> Any:
    if word not in known:
        raise ValueError(f"unknown status {word!r}; known: {', '.join(known)}")
    return word


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    with _reading(path):
        card = json.loads(text)
        if not isinstance(card, dict):
            raise TypeError(f"expected an object, got {type(card).__name__}")
        return card


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: missing; is the training of this run finished?")
    with _reading(path):
        return path.read_text(encoding="utf-8")


@contextmanager
def _reading(path: Path, where: str = "") -> Iterator[None]:
    """Turn whatever is wrong with a file's content into one line that names the file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}: damaged: {where}it holds no {error}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged: {where}{error}.") from error
