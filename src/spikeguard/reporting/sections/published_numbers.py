"""Measured numbers beside the rows of published tables that a recipe names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeguard.config.errors import ConfigError
from spikeguard.config.protocols import (
    EPS,
    NORM,
    Protocol,
    differences,
    protocol_of,
    size_differences,
)
from spikeguard.config.published import PAPERS, Row, row
from spikeguard.config.schema import Recipe, eps_text, load_recipe
from spikeguard.config.yaml_files import recipe_names
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting import formatting
from spikeguard.reporting.readers.attack_results import AttackResult
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.sections.verdict_cards import command
from spikeguard.reporting.standings import used_results
from spikeguard.training.checkpointing import differences as recipe_differences

__all__ = ["Comparison", "Match", "Pair", "comparisons", "match"]


@dataclass(frozen=True)
class Match:
    """What was measured with the attack of a printed number.

    Attributes:
        score: Accuracy measured with the same attack, steps, step size, EoT, norm and radius; None
            if there is no such result.
        note: Known errors of the printed number, and what differs in the results there are.
        options: Options of ``spikeguard attack`` that make the result; empty where it is there, or
            the paper does not define the attack.
    """

    score: Score | None
    note: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One attack: ``theirs`` is published, in per cent; ``ours`` is measured, None if not run.

    ``command`` makes the missing result; "" where there is none to make.
    """

    attack: str
    theirs: str
    ours: Score | None
    note: str
    command: str


@dataclass(frozen=True)
class Comparison:
    """One network beside one published row.

    Attributes:
        label: Name of the network.
        source: Description of the row.
        pairs: Clean accuracy and the attacks of the row.
        notes: Differences that limit the comparison.
        hint: Command for all results that are missing; "" where there are none.
    """

    label: str
    source: str
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    hint: str


def comparisons(networks: Sequence[Network]) -> list[Comparison]:
    """Compare each network with each row that its recipe names."""
    return [
        _compare(network, row(key))
        for network in networks
        if network.recipe is not None
        for key in network.recipe.published
    ]


def match(results: Sequence[AttackResult], printed: Row, attack: str) -> Match:
    """Return the result measured as a number of a row was; of several, that on most images.

    A cascade, which has no accuracy of a single attack, and a search in bfloat16 are other attacks.

    Args:
        results: Results of one network.
        printed: The row.
        attack: One of its columns, or "clean".
    """
    note = printed.notes.get(attack, "")
    if attack == "clean":
        clean = max((r.clean for r in results), key=lambda score: score.n, default=None)
        options = () if clean is not None else ("--suite", "baseline", *_ball())
        return Match(clean, note, options)
    protocol = protocol_of(printed, attack)
    if protocol is None:
        said = PAPERS[printed.paper].undefined.get(attack, "no attack here is the paper's")
        return Match(None, "; ".join(filter(None, (note, said, _variants(results, attack)))))
    found = sorted(_candidates(results, protocol), key=lambda item: (len(item[0]), -item[1].n))
    if found and not found[0][0]:
        return Match(found[0][1], note)
    differs = f"our run has {', '.join(found[0][0])}" if found else ""
    silent = bool(results) and not any(result.stochastic for result in results)
    line = protocol.line if silent else f"{protocol.line} eot={protocol.eot}"
    options = ("--attack", line, *_ball())
    return Match(None, "; ".join(filter(None, (note, differs))), options)


def _candidates(
    results: Sequence[AttackResult], protocol: Protocol
) -> Iterator[tuple[tuple[str, ...], Score]]:
    """Yield what differs in each result of the same attack, steps and gradient; its accuracy."""
    wanted = _kind(protocol.settings)
    for result in results:
        for name, settings in result.settings.items():
            if _kind(settings) == wanted and not result.cascade:
                found = differences(protocol.settings, settings, stochastic=result.stochastic)
                if result.precision != "32":
                    found = (*found, f"precision {result.precision}, not 32")
                yield found, result.attacks[name]


def _kind(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return attack, steps and gradient, without the average over draws."""
    gradient = settings.get("gradient", {})
    inner = gradient.get("inner", {}) if gradient.get("kind") == "EoT" else gradient
    return settings.get("kind"), settings.get("steps"), inner.get("kind")


def _variants(results: Sequence[AttackResult], attack: str) -> str:
    """Write the measured variants of an attack that a paper does not define."""
    found = {
        str(settings.get("variant")): result.attacks[name]
        for result in results
        if (result.norm, result.cascade, result.precision) == (NORM, False, "32")
        and math.isclose(result.eps, EPS)
        for name, settings in result.settings.items()
        if attack == "rfgsm" and settings.get("kind") == "RFGSM" and not result.gradients[name]
    }
    listed = ", ".join(f"{name} {formatting.percent(s.accuracy)}" for name, s in found.items())
    return f"measured variants: {listed}" if listed else ""


def _ball() -> tuple[str, ...]:
    return ("--norm", NORM, "--eps", eps_text(EPS))


def _compare(network: Network, printed: Row) -> Comparison:
    assert network.recipe is not None
    pairs, lines = [], dict[str, None]()
    for attack, accuracy in printed.accuracies.items():
        found = match(used_results(network), printed, attack)
        made = command("attack", network, *found.options) if found.options else ""
        if "--attack" in found.options:
            lines[found.options[1]] = None
        shown = formatting.attack(attack)
        pairs.append(Pair(shown, f"{accuracy:g}", found.score, found.note, made))
    options = [option for line in lines for option in ("--attack", line)]
    return Comparison(
        label=network.label,
        source=f"{printed.short}: {printed.network}, {printed.dataset}, {printed.defence}",
        pairs=tuple(pairs),
        notes=(
            f"{PAPERS[printed.paper].title}: {PAPERS[printed.paper].protocol}.",
            *network.recipe.readings,
            *_size(network.recipe, printed),
            *_differences(network),
        ),
        hint=command("attack", network, *options, *_ball()) if options else pairs[0].command,
    )


def _size(recipe: Recipe, printed: Row) -> list[str]:
    """Describe a run that is not of the paper's size, but for the number of test images."""
    found = size_differences(recipe, printed, None)
    return [f"Not at this size: {', '.join(found)}."] if found else []


def _differences(network: Network) -> list[str]:
    """Describe changes to the shipped recipe, and the number of test images."""
    recipe, found = network.recipe, []
    assert recipe is not None
    if recipe.name in recipe_names():
        try:
            shipped = {**load_recipe(recipe.name).training_part(), "seed": recipe.seed}
        except ConfigError:  # the recipe is from another version of SpikeGuard
            shipped = recipe.training_part()
        changes = list(recipe_differences(shipped, recipe.training_part()))
        if changes:
            listed = "; ".join(changes)
            found.append(f"This run does not follow the recipe {recipe.name}: {listed}.")
    limits = {result.limit for result in used_results(network) if result.limit is not None}
    if limits:
        found.append(
            f"Measured on the first {formatting.count(max(limits))} test images, published on all."
        )
    return found
