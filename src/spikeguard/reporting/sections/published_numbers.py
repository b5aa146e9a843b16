"""Measured numbers beside the rows of published tables that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spikeguard.config.errors import ConfigError
from spikeguard.config.published import PAPERS, Row, row
from spikeguard.config.schema import load_recipe
from spikeguard.config.yaml_files import recipe_names
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting import formatting
from spikeguard.reporting.readers.attack_results import AttackResult
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.sections.verdict_cards import command
from spikeguard.training.checkpointing import differences

__all__ = ["Comparison", "Pair", "comparisons"]

EPS = 8 / 255  # radius of all published tables, Linf


@dataclass(frozen=True)
class Pair:
    """One attack: ``theirs`` is published, in per cent; ``ours`` is measured, None if not run."""

    attack: str
    theirs: str
    ours: Score | None
    note: str


@dataclass(frozen=True)
class Comparison:
    """One network beside one published row.

    Attributes:
        label: Name of the network.
        source: Description of the row.
        pairs: Clean accuracy and the attacks of the row.
        notes: Differences that limit the comparison.
        hint: Command for attacks that were not run; "" where there are none.
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


def _compare(network: Network, printed: Row) -> Comparison:
    """Pair equal attacks only: a cascade, bfloat16 or another surrogate has another name."""
    assert network.recipe is not None
    suite = PAPERS[printed.paper].suite
    results = sorted(
        (r for r in network.attacked if r.norm == "linf" and abs(r.eps - EPS) < 1e-9),
        key=lambda result: (result.suite != suite, -result.clean.n),
    )
    pairs = tuple(
        Pair(
            formatting.attack(attack),
            f"{accuracy:g}",
            *_ours(results, attack, suite, printed.notes.get(attack, "")),
        )
        for attack, accuracy in printed.accuracies.items()
    )
    hint = command("attack", network, "--suite", suite, "--norm", "linf", "--eps", "8/255")
    return Comparison(
        label=network.label,
        source=f"{printed.short}: {printed.network}, {printed.dataset}, {printed.defence}",
        pairs=pairs,
        notes=(
            f"{PAPERS[printed.paper].title}: {_protocol(printed)}.",
            *network.recipe.readings,
            *_differences(network),
        ),
        hint="" if any(r.suite == suite for r in results) else hint,
    )


def _ours(
    results: Sequence[AttackResult], attack: str, suite: str, note: str
) -> tuple[Score | None, str]:
    """Return the measured number and a note, which names the suite if it differs."""
    if attack == "clean":
        return (results[0].clean if results else None), note
    for result in results:
        if attack in result.attacks and not result.widths[attack]:
            other = "" if result.suite == suite else f"measured with suite {result.suite}"
            return result.attacks[attack], "; ".join(filter(None, (note, other)))
    return None, note


def _protocol(printed: Row) -> str:
    return PAPERS[printed.paper].protocol


def _differences(network: Network) -> list[str]:
    """Describe changes to the shipped recipe, and the number of test images."""
    recipe, found = network.recipe, []
    assert recipe is not None
    if recipe.name in recipe_names():
        try:
            shipped = {**load_recipe(recipe.name).training_part(), "seed": recipe.seed}
        except ConfigError:  # the recipe is from another version of SpikeGuard
            shipped = recipe.training_part()
        changes = list(differences(shipped, recipe.training_part()))
        if changes:
            listed = "; ".join(changes)
            found.append(f"This run does not follow the recipe {recipe.name}: {listed}.")
    limits = {result.limit for result in network.attacked if result.limit is not None}
    if limits:
        found.append(
            f"Measured on the first {formatting.count(max(limits))} test images, published on all."
        )
    return found
