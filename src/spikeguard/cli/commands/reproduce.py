"""``spikeguard reproduce``: train and attack every recipe of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from spikeguard.cli.console import (
    Plugin,
    allowed_plugins,
    progress_board,
    say,
    table,
    words,
)
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.config.errors import ConfigError

if TYPE_CHECKING:
    from spikeguard.runs.printed_rows import PrintedNumber

__all__ = ["reproduce"]


def reproduce(
    folder: str,
    /,
    *changes: str,
    seeds: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    only: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    jobs: int = 2,
    out: Path | None = None,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Train and attack every recipe of a folder at several seeds; print one table.

    Finished runs are skipped; after an interruption the same command continues. The numbers that
    the recipes' papers print stand in a second table. Exit code 1 if a row has no numbers.

    Args:
        folder: A folder of recipes, such as mini.
        changes: Changes to every recipe, key=value.
        seeds: Seeds, repeated or with commas; 0,1,2 when left out.
        only: Only recipes whose name contains one of these texts; repeated or with commas.
        jobs: Runs at a time, each in a process of one thread.
        out: Folder of the runs and of table.json and table.md; runs/<folder> when left out.
        json: Print the table as JSON and nothing else on standard output.
        plugin: Package whose parts the changes may name; repeated or with commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.config.schema import eps_text
    from spikeguard.runs.reproduction import PAGE, TABLE
    from spikeguard.runs.reproduction import reproduce as run

    path = Path("runs") / folder if out is None else out
    with progress_board() as update:
        result = run(
            folder,
            path,
            seeds=_whole(seeds or ["0,1,2"]),
            only=words(only or []),
            changes=changes,
            jobs=jobs,
            data_root=data_root,
            plugins=allowed_plugins(plugin),
            progress=update,
        )
    head = ("recipe", "eps", "attacks", "clean", "FGSM", "worst case")
    shown = ("clean", "fgsm", "worst_case")
    table(
        head,
        [
            (
                e.recipe,
                eps_text(e.eps),
                e.suite,
                *(str(e.scores[a]) if a in e.scores else "" for a in shown),
            )
            for e in result.entries
        ],
    )
    say()
    say("Accuracies in %: mean [Student's 95 % interval over seeds] (each seed).")
    _show_printed(result.printed)
    for line in result.diverged:
        say(f"diverged: {line}")
    for line in result.empty:
        say(f"empty row: {line}")
    say(f"table in {path / PAGE} and {path / TABLE}")
    if json:
        write_result("reproduce", {"folder": path, **asdict(result)})
    return 1 if result.empty else 0


def _show_printed(printed: Sequence[PrintedNumber]) -> None:
    """Write the printed numbers beside ours."""
    from spikeguard.config.published import row
    from spikeguard.reporting import formatting
    from spikeguard.runs.printed_rows import about, difference_text, size_lines

    if not printed:
        return
    say()
    table(
        ("recipe", "table", "attack", "printed", "ours", "ours - printed", "about it"),
        [
            (
                number.recipe,
                row(number.row).short,
                formatting.attack(number.attack),
                f"{100 * number.printed:.2f}",
                str(number.ours or ("not run" if number.command else "no match")),
                difference_text(number),
                about(number),
            )
            for number in printed
        ],
    )
    for line in size_lines(printed):
        say(line)
    for number in printed:
        if number.command:
            say(f"{formatting.attack(number.attack)} not run: {number.command}")
    say()


def _whole(given: list[str]) -> list[int]:
    """Read the seeds."""
    try:
        return [int(word) for word in words(given)]
    except ValueError:
        raise ConfigError(f"--seeds: expected whole numbers, got {','.join(given)!r}.") from None
