"""What the commands share: lines, tables, progress with the time left, lists of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from spikeguard.building import ConfigError, number

__all__ = ["note", "numbers", "progress", "progress_board", "say", "table", "words"]

Update = Callable[[int, int, str], None]

_PLAIN_WIDTH = 160  # where there is no terminal to fit


def say(text: str = "") -> None:
    """Write a line of results to standard output, as it is."""
    print(text)


def note(text: str) -> None:
    """Write a line about the work to standard error, as it is."""
    _errors().print(Text(text), soft_wrap=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write an aligned table to standard output."""
    console = _Output()
    if not console.is_terminal:
        console = _Output(width=_PLAIN_WIDTH)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(head):
        shown.add_column(title, no_wrap=column == 0)
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)


@contextmanager
def progress(task: str) -> Iterator[Update]:
    """Show how far ``update(done, total, what)`` has come, with the time left.

    Without a terminal there is no bar, but a plain line for every epoch and every new ``what``.
    """
    with progress_board() as board:
        yield partial(board, task)


@contextmanager
def progress_board() -> Iterator[Callable[[str, int, int, str], None]]:
    """Show several tasks at once, ``update(task, done, total, what)``; a finished one is hidden."""
    console = _errors()
    if not console.is_terminal:
        seen: set[str] = set()

        def write(task: str, done: int, total: int, what: str) -> None:
            inside_epoch = what.startswith("epoch ") and "validation" not in what
            line = f"{task}: {what}"
            if what and not inside_epoch and line not in seen:
                seen.add(line)
                note(line)

        yield write
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        rows: dict[str, TaskID] = {}

        def update(task: str, done: int, total: int, what: str) -> None:
            if task not in rows:
                rows[task] = bars.add_task(task, total=None)
            bars.update(
                rows[task],
                completed=done,
                total=total,
                description=f"{task}: {what}",
                visible=done < total,
            )

        yield update


def numbers(option: str, given: Sequence[str]) -> list[float]:
    """Read the numbers of an option that may be repeated or hold commas: ``--eps 2/255,8/255``.

    Raises:
        ConfigError: If one is no finite number.
    """
    found = []
    for word in words(given):
        value = number(word)
        if not isinstance(value, float) or not math.isfinite(value):
            raise ConfigError(f"{option}: expected a number such as 0.1 or 8/255, got {word!r}.")
        found.append(value)
    return found


def words(given: Sequence[str]) -> list[str]:
    """Split an option that may be repeated or hold commas."""
    return [word.strip() for part in given for word in part.split(",") if word.strip()]


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command line ends quietly, as for every other output


def _errors() -> Console:
    return Console(stderr=True, highlight=False)
