"""How a printed number was measured, and what differs in a run: its attack, and its size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from spikeguard.config.published import PAPERS, Row, printed_samples
from spikeguard.config.schema import Recipe, load_recipe
from spikeguard.config.yaml_files import recipe_names
from spikeguard.system.pixel_units import fraction_text

__all__ = ["EPS", "NORM", "Protocol", "differences", "protocol_of", "size_differences"]

EPS, NORM = 8 / 255, "linf"  # radius and norm of all published tables
_ALIKE = 1e-9  # relative difference of two numbers that are the same setting
_OTHER_SIZES = (
    "demo/",
    "events/",
    "mini/",
    "medium/",
)  # recipes that are not of the size of any paper


@dataclass(frozen=True)
class Protocol:
    """The attack behind a printed number.

    Attributes:
        line: Its attack line, without ``eot``.
        eot: Gradients averaged in every step.
        settings: Its settings, as ``attacks.describe`` returns them.
    """

    line: str
    eot: int
    settings: Mapping[str, Any]


def protocol_of(row: Row, attack: str) -> Protocol | None:
    """Return how a number of a row was measured; None where the paper does not define the attack.

    Args:
        row: A row of a published table.
        attack: One of its columns, not "clean".
    """
    from spikeguard.attacks.attack_lines import parse_line
    from spikeguard.attacks.base import describe
    from spikeguard.attacks.listed_suites import LISTED
    from spikeguard.attacks.threat import THREATS

    paper = PAPERS[row.paper]
    suite = LISTED[paper.suite_of(row.table)]
    if attack in paper.undefined or attack not in suite.attacks:
        return None
    line, eot = suite.attacks[attack], suite.eot or 1
    settings = describe(parse_line(line).build(THREATS[NORM](EPS), eot))
    return Protocol(line, eot, settings)


def differences(
    wanted: Mapping[str, Any], ours: Mapping[str, Any], *, stochastic: bool
) -> tuple[str, ...]:
    """Return what differs between two settings of attacks, such as "EoT 4, not 1".

    Args:
        wanted: Settings of the printed attack.
        ours: Settings of the attack that was run.
        stochastic: Whether the network draws noise; if not, EoT changes nothing.
    """
    (eot, first), (our_eot, second) = _without_eot(wanted), _without_eot(ours)
    found = list(_differing(first, second, ""))
    if stochastic and eot != our_eot:
        found.insert(0, f"EoT {our_eot}, not {eot}")
    return tuple(found)


def size_differences(recipe: Recipe, row: Row, samples: int | None) -> tuple[str, ...]:
    """Return in what a run is not of the paper's size: data, images, network, width, epochs.

    Args:
        recipe: The recipe of the run.
        row: The printed row beside it.
        samples: Number of attacked test images; None if nothing was measured.
    """
    name = _recipes_of_rows().get(row.key)
    found = []
    if recipe.data.name != row.dataset:
        found.append(f"data {recipe.data.name}, not {row.dataset}")
    if recipe.data.train_limit is not None:
        found.append(f"{recipe.data.train_limit:,} training images, not all")
    printed_n = printed_samples(row.dataset)
    if samples is not None and samples < printed_n:
        found.append(f"{samples:,} test images, not {printed_n:,}")
    if name is not None:
        theirs = load_recipe(name)
        pairs = (
            ("held-out share of the training images", *_held_out(recipe, theirs)),
            ("network", recipe.model["name"], theirs.model["name"]),
            ("width", *_widths(recipe, theirs)),
            ("epochs", _epochs(recipe), _epochs(theirs)),
            ("T", recipe.model.get("T"), theirs.model.get("T")),
        )
        found += [
            f"{what} {mine}, not {printed}" for what, mine, printed in pairs if mine != printed
        ]
    return tuple(found)


def _widths(mine: Recipe, theirs: Recipe) -> tuple[Any, Any]:
    """Return both widths; two equal ones where a number of channels meets a multiplier."""
    found = mine.model.get("width", 1), theirs.model.get("width", 1)
    other = mine.model["name"] != theirs.model["name"] and type(found[0]) is int
    return (1, 1) if other else found


def _held_out(*recipes: Recipe) -> tuple[str, ...]:
    return tuple(f"{recipe.data.val_fraction:g}" for recipe in recipes)


@cache
def _recipes_of_rows() -> Mapping[str, str]:
    """Return the shipped recipe of the paper's size for each row: one of the paper's own folder."""
    named: dict[str, list[str]] = {}
    for name in recipe_names():
        if not name.startswith(_OTHER_SIZES):
            for key in load_recipe(name).published:
                named.setdefault(key, []).append(name)
    return {
        key: min(names, key=lambda name: (not name.startswith(key.partition("/")[0]), len(name)))
        for key, names in named.items()
    }


def _epochs(recipe: Recipe) -> Any:
    return recipe.train.get("epochs", "by default")


def _without_eot(settings: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the number of averaged gradients, and the settings without the average."""
    gradient = settings.get("gradient")
    if not isinstance(gradient, Mapping) or gradient.get("kind") != "EoT":
        return 1, dict(settings)
    return int(gradient["draws"]), {**settings, "gradient": gradient["inner"]}


def _differing(wanted: Any, ours: Any, key: str) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(ours, Mapping):
        if wanted.get("kind") != ours.get("kind"):
            yield f"{key or 'attack'} {ours.get('kind')}, not {wanted.get('kind')}"
            return
        for name in (*wanted, *(key for key in ours if key not in wanted)):
            yield from _differing(wanted.get(name), ours.get(name), name)
    elif isinstance(wanted, int | float) and isinstance(ours, int | float):
        if not math.isclose(wanted, ours, rel_tol=_ALIKE):
            yield f"{key} {_text(ours)}, not {_text(wanted)}"
    elif wanted != ours:
        yield f"{key} {_text(ours)}, not {_text(wanted)}"


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    text = fraction_text(value)
    return text if len(text) < len(f"{value:.9f}") else f"{value:.6g}"
