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

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spikeguard.cli.options import Plugin
from spikeguard.config.errors import ConfigError
from spikeguard.config.instantiate import parse_number
from spikeguard.config.plugins import Plugins, is_reference
from spikeguard.system.progress import ProgressCallback, TaskProgressCallback
from spikeguard.system.progress_bar import (
    begins,
    progress_bars,
    progress_text,
    standard_error,
)

__all__ = [
    "Plugin",
    "allowed_plugins",
    "note",
    "numbers",
    "progress",
    "progress_board",
    "say",
    "table",
    "width",
    "words",
]

Clock = Callable[[], float]  # seconds

_PLAIN_WIDTH = 120  # columns of a table outside a terminal
_LINES = 10  # plain lines for a task, beside those for its stages


def say(text: str = "") -> None:
    """Write a line of results to standard output, without markup."""
    print(text)


def note(text: str) -> None:
    """Write a line about the work to standard error, without markup."""
    standard_error().print(Text(text), soft_wrap=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write an aligned table to standard output, no wider than the terminal or 120 columns."""
    console = _Output()
    if not console.is_terminal:
        console = _Output(width=_PLAIN_WIDTH)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(head):
        shown.add_column(title, no_wrap=column == 0, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    with console.capture() as written:
        console.print(shown)
    lines = written.get().splitlines()
    console.file.write("".join(f"{line.rstrip()}\n" for line in lines))


def width() -> int:
    """Return the columns that a line of results may take: the terminal's, or 120 in a file."""
    console = Console()
    return console.width if console.is_terminal else _PLAIN_WIDTH


@contextmanager
def progress(task: str, *, clock: Clock = time.monotonic) -> Iterator[ProgressCallback]:
    """Show the progress of ``update(done, total, what)`` with the time left.

    Outside a terminal a plain line is written for every tenth of the total, every epoch and every
    new ``what``, unless that is one unit of more than ten.
    """
    with progress_board(clock=clock) as board:
        yield partial(board, task)


@contextmanager
def progress_board(*, clock: Clock = time.monotonic) -> Iterator[TaskProgressCallback]:
    """Show several tasks at once, ``update(task, done, total, what)``; finished ones are hidden."""
    console = standard_error()
    if not console.is_terminal:
        yield _Lines(clock)
        return
    with progress_bars(console) as board:
        yield board


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
        starts = state is None or begins((state.done, state.total), done, total)
        if state is None or starts:
            state = self._tasks[task] = _TaskState(total, done, self._clock(), done, done)
        unit = done - state.done == 1 and _LINES < total != done  # one of many checks
        state.done, state.total = done, total
        inside_epoch = what.startswith("epoch ") and "validation" not in what
        stage = not inside_epoch and not unit and line not in self._shown_lines
        if starts or stage or _LINES * (done - state.shown) >= total:
            state.shown = done
            self._shown_lines.add(line)
            note(f"{line} ({progress_text(done, total)}{state.left(self._clock())})")


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command line exits without a traceback
