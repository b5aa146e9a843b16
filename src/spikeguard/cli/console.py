"""Helpers of the commands: output lines, tables, progress with time left, lists of values."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from spikeguard.config.errors import ConfigError
from spikeguard.config.instantiate import parse_number
from spikeguard.config.plugins import Plugins, is_reference
from spikeguard.system.progress import ProgressCallback, TaskProgressCallback

__all__ = [
    "Plugin",
    "allowed_plugins",
    "note",
    "numbers",
    "progress",
    "progress_board",
    "say",
    "table",
    "words",
]

Clock = Callable[[], float]  # seconds
Plugin = Annotated[
    list[str] | None, Parameter(name="--plugin", negative="", consume_multiple=False)
]

_PLAIN_WIDTH = 160  # columns of a table outside a terminal
_COUNTED = 2000  # units; a larger total is shown in per cent
_LINES = 10  # plain lines for a task, beside those for its stages


def say(text: str = "") -> None:
    """Write a line of results to standard output, without markup."""
    print(text)


def note(text: str) -> None:
    """Write a line about the work to standard error, without markup."""
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
def progress(task: str, *, clock: Clock = time.monotonic) -> Iterator[ProgressCallback]:
    """Show the progress of ``update(done, total, what)`` with the time left.

    Outside a terminal a plain line is written for every epoch, every new ``what`` and every tenth
    of the total.
    """
    with progress_board(clock=clock) as board:
        yield partial(board, task)


@contextmanager
def progress_board(*, clock: Clock = time.monotonic) -> Iterator[TaskProgressCallback]:
    """Show several tasks at once, ``update(task, done, total, what)``; finished ones are hidden."""
    console = _errors()
    if not console.is_terminal:
        yield _Lines(clock)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        rows: dict[str, TaskID] = {}
        places: dict[str, tuple[int, int]] = {}

        def update(task: str, done: int, total: int, what: str) -> None:
            if task not in rows:
                rows[task] = bars.add_task(task, total=None, text="")
            elif _begins(places[task], done, total):
                bars.reset(rows[task])
            places[task] = done, total
            bars.update(
                rows[task],
                completed=done,
                total=total,
                description=f"{task}: {what}",
                visible=done < total,
                text=_progress_text(done, total),
            )

        yield update


def numbers(option: str, given: Sequence[str]) -> list[float]:
    """Read the numbers of an option that may be repeated or contain commas: ``--eps 2/255,8/255``.

    Raises:
        ConfigError: If a value is not a finite number.
    """
    found = []
    for word in words(given):
        value = parse_number(word)
        if not isinstance(value, float) or not math.isfinite(value):
            raise ConfigError(f"{option}: expected a number such as 0.1 or 8/255, got {word!r}.")
        found.append(value)
    return found


def words(given: Sequence[str]) -> list[str]:
    """Split an option that may be repeated or contain commas."""
    return [word.strip() for part in given for word in part.split(",") if word.strip()]


def allowed_plugins(packages: Sequence[str] | None, data: str | None = None) -> Plugins:
    """Return the packages of ``--plugin`` and the module of ``--data module:function``.

    Modules of the current folder are found too.

    Raises:
        ConfigError: If there is no such package.
    """
    named = data is not None and is_reference(data)
    here = str(Path.cwd())
    if (packages or named) and here not in sys.path:
        sys.path.append(here)  # worker processes inherit the path
    plugins = Plugins.of(words(packages or []))
    return plugins.and_module_of(data, "--data") if data is not None and named else plugins


@dataclass
class _TaskState:
    """State of a task: its total, where and when it started, its position, the last one shown."""

    total: int
    first: int
    started: float  # seconds
    done: int
    shown: int

    def left(self, now: float) -> str:
        """Return the time left at the pace so far; empty while there is no pace."""
        if not self.first < self.done < self.total:
            return ""
        pace = (now - self.started) / (self.done - self.first)
        return f", {timedelta(seconds=round(pace * (self.total - self.done)))} left"


def _begins(before: tuple[int, int], done: int, total: int) -> bool:
    """Whether the task starts another piece of work, such as the next file of a download."""
    was_done, was_total = before
    return done < was_done or (was_done >= was_total and (done, total) != before)


def _progress_text(done: int, total: int) -> str:
    """Format the progress of a task: in units for a small total, else in per cent."""
    return f"{done}/{total}" if total <= _COUNTED else f"{100 * done / total:.0f} %"


class _Lines:
    """Progress outside a terminal: lines ``task: what (done/total, time left)``.

    Lines are due by share, not by time, so that the output does not depend on the machine's speed.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self._tasks: dict[str, _TaskState] = {}
        self._shown_lines: set[str] = set()

    def __call__(self, task: str, done: int, total: int, what: str) -> None:
        line = f"{task}: {what}"
        state = self._tasks.get(task)
        begins = state is None or _begins((state.done, state.total), done, total)
        if state is None or begins:
            state = self._tasks[task] = _TaskState(total, done, self._clock(), done, done)
        state.done, state.total = done, total
        inside_epoch = what.startswith("epoch ") and "validation" not in what
        stage = not inside_epoch and line not in self._shown_lines
        if begins or stage or _LINES * (done - state.shown) >= total:
            state.shown = done
            self._shown_lines.add(line)
            note(f"{line} ({_progress_text(done, total)}{state.left(self._clock())})")


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command line exits without a traceback


def _errors() -> Console:
    return Console(stderr=True, highlight=False)
