"""The printed numbers of a reproduction: beside ours, with the difference and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spikeguard.config.protocols import size_differences
from spikeguard.config.published import Row, printed_samples, row
from spikeguard.config.schema import Recipe
from spikeguard.evaluation.estimates import Estimate
from spikeguard.evaluation.statistics import OverSeeds, Score, over_seeds
from spikeguard.reporting import formatting
from spikeguard.reporting.readers.attack_results import AttackResult, read_attacked
from spikeguard.reporting.sections.published_numbers import Match, match
from spikeguard.storage.run_folder import ATTACKS

__all__ = [
    "PrintedNumber",
    "about",
    "difference_text",
    "printed_markdown",
    "printed_numbers",
    "size_lines",
]


@dataclass(frozen=True)
class PrintedNumber:
    """A printed number beside ours.

    Attributes:
        recipe: Name of the recipe.
        row: Key of the row.
        attack: Column of the row.
        printed: The printed accuracy, in [0, 1].
        ours: Accuracy over the seeds under the same protocol; None where a seed has no such result.
        difference: Ours minus printed, with a 95 % interval: the wider of that over seeds and that
            over images, and the sampling of the paper's test images.
        size: In what the run is not of the paper's size.
        note: What is known about the printed number, and what differs in the results there are.
        command: Command that makes the missing result of the first seed without one; "" for none.
    """

    recipe: str
    row: str
    attack: str
    printed: float
    ours: OverSeeds | None
    difference: Estimate | None
    size: tuple[str, ...]
    note: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def printed_numbers(name: str, runs: Sequence[tuple[Recipe, Path]]) -> Iterator[PrintedNumber]:
    """Yield every number of the rows that a recipe names, beside the results of its runs.

    Args:
        name: Name of the recipe.
        runs: The recipe and the run folder of each seed.
    """
    results = [_results(path) for _, path in runs]
    for key in runs[0][0].published:
        printed = row(key)
        for attack, accuracy in printed.accuracies.items():
            found = [match(each, printed, attack) for each in results]
            yield _beside(name, runs, printed, attack, accuracy / 100, found)


def _beside(
    name: str,
    runs: Sequence[tuple[Recipe, Path]],
    printed: Row,
    attack: str,
    accuracy: float,
    found: Sequence[Match],
) -> PrintedNumber:
    scores = [each.score for each in found if each.score is not None]
    whole = len(scores) == len(found)
    ours = over_seeds(scores) if whole else None
    samples = min((score.n for score in scores), default=None)
    missing = next((place for place, each in enumerate(found) if each.score is None), None)
    options = () if missing is None else found[missing].options
    folder = runs[missing or 0][1]
    return PrintedNumber(
        recipe=name,
        row=printed.key,
        attack=attack,
        printed=accuracy,
        ours=ours,
        difference=None
        if ours is None
        else _difference(ours, samples or 1, printed.dataset, accuracy),
        size=size_differences(runs[0][0], printed, samples),
        note=found[missing or 0].note,
        command=formatting.shell("spikeguard", "attack", str(folder), *options) if options else "",
    )


def _difference(ours: OverSeeds, n: int, dataset: str, printed: float) -> Estimate:
    low, high = ours.sampling
    mine = Score(
        ours.mean,
        min(low, low if ours.low is None else ours.low),
        max(high, high if ours.high is None else ours.high),
        n,
    )
    return Estimate.unpaired(mine, Score.from_share(printed, printed_samples(dataset)))


def _results(path: Path) -> list[AttackResult]:
    return [read_attacked(card) for card in sorted((path / ATTACKS).glob("*.json"))]


def printed_markdown(numbers: Sequence[PrintedNumber]) -> list[str]:
    """Return the lines of a Markdown table of printed numbers; none without numbers."""
    if not numbers:
        return []
    head = ["recipe", "printed row", "attack", "printed", "ours", "ours - printed", "about it"]
    rows = [head, ["---"] * len(head)]
    rows += [
        [
            number.recipe,
            number.row,
            formatting.attack(number.attack),
            f"{100 * number.printed:.2f}",
            _ours(number),
            difference_text(number),
            about(number),
        ]
        for number in numbers
    ]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    sizes = [f"* {line}" for line in size_lines(numbers)]
    return ["", "## Beside the printed numbers", "", *lines, "", *sizes, "", _LEGEND, ""]


def about(number: PrintedNumber) -> str:
    """Write what limits the comparison of a number, in a few words."""
    size = "not at this size" if number.size else ""
    return "; ".join(filter(None, (size, number.note)))


def size_lines(numbers: Sequence[PrintedNumber]) -> list[str]:
    """Return one line for each recipe that is not of the paper's size: what differs."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for number in numbers:
        found.setdefault((number.recipe, number.row), {}).update(dict.fromkeys(number.size))
    return [
        f"{recipe} is not of the size of {row}: {', '.join(differing)}"
        for (recipe, row), differing in found.items()
        if differing
    ]


def difference_text(number: PrintedNumber) -> str:
    """Write the difference in points with its interval: "-3.1 [-5.0, -1.2]"."""
    if number.difference is None:
        return ""
    value, low, high = (
        100 * part
        for part in (number.difference.value, number.difference.low, number.difference.high)
    )
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _ours(number: PrintedNumber) -> str:
    if number.ours is not None:
        return str(number.ours)
    return f"not run: `{number.command}`" if number.command else "no match"


_LEGEND = (
    "A printed number stands beside ours only if attack, steps, step size, EoT, norm and radius "
    "are the same. The difference is in points, with a 95 % interval: the wider of Student's over "
    "the seeds and Wilson's over our images, and Wilson's over the paper's 10,000 images."
)
