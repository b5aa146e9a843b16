"""What the commands share: lines, tables, progress with the time left, lists of numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

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
from spikeguard.system.progress import ProgressCallback, TaskProgressCallback

__all__ = ["note", "numbers", "progress", "progress_board", "say", "table", "words"]

Clock = Callable[[], float]  # seconds

_PLAIN_WIDTH = 160  # where there is no terminal to fit
_COUNTED = 2000  # units; more are told as a share
_LINES = 10  # plain lines in which a task is told, beside those for its stages


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
def progress(task: str, *, clock: Clock = time.monotonic) -> Iterator[ProgressCallback]:
    """Show how far ``update(done, total, what)`` has come, with the time left.

    Without a terminal there is no bar, but a plain line for every epoch, for every new ``what`` and
    for every further tenth of the whole.
    """
    with progress_board(clock=clock) as board:
        yield partial(board, task)


@contextmanager
def progress_board(*, clock: Clock = time.monotonic) -> Iterator[TaskProgressCallback]:
    """Show several tasks at once, ``update(task, done, total, what)``; a finished one is hidden."""
    console = _errors()
    if not console.is_terminal:
        yield _Lines(clock)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[far]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        rows: dict[str, TaskID] = {}
        places: dict[str, tuple[int, int]] = {}

        def update(task: str, done: int, total: int, what: str) -> None:
            if task not in rows:
                rows[task] = bars.add_task(task, total=None, far="")
            elif _begins(places[task], done, total):
                bars.reset(rows[task])
            places[task] = done, total
            bars.update(
                rows[task],
                completed=done,
                total=total,
                description=f"{task}: {what}",
                visible=done < total,
                far=_far(done, total),
            )

        yield update


def numbers(option: str, given: Sequence[str]) -> list[float]:
    """Read the numbers of an option that may be repeated or hold commas: ``--eps 2/255,8/255``.

    Raises:
        ConfigError: If one is no finite number.
    """
    found = []
    for word in words(given):
        value = parse_number(word)
        if not isinstance(value, float) or not math.isfinite(value):
            raise ConfigError(f"{option}: expected a number such as 0.1 or 8/255, got {word!r}.")
        found.append(value)
    return found


def words(given: Sequence[str]) -> list[str]:
    """Split an option that may be repeated or hold commas."""
    return [word.strip() for part in given for word in part.split(",") if word.strip()]


@dataclass
class _Course:
    """A task's way to ``total``: where and when it began, where it is, where a line told so."""

    total: int
    first: int
    began: float  # seconds
    done: int
    shown: int

    def left(self, now: float) -> str:
        """Say how long the rest takes at the pace since the beginning; nothing without a pace."""
        if not self.first < self.done < self.total:
            return ""
        pace = (now - self.began) / (self.done - self.first)
        return f", {timedelta(seconds=round(pace * (self.total - self.done)))} left"


def _begins(before: tuple[int, int], done: int, total: int) -> bool:
    """Whether another piece of work begins: a task may have several, such as files to download."""
    was_done, was_total = before
    return done < was_done or (was_done >= was_total and (done, total) != before)


def _far(done: int, total: int) -> str:
    """Write how far a task is: its units where they can be counted, else a share."""
    return f"{done}/{total}" if total <= _COUNTED else f"{100 * done / total:.0f} %"


class _Lines:
    """Progress where there is no terminal: ``task: what (done/total, time left)``.

    By share and not by time, so that what is written does not depend on the machine's speed.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self._courses: dict[str, _Course] = {}
        self._said: set[str] = set()

    def __call__(self, task: str, done: int, total: int, what: str) -> None:
        line = f"{task}: {what}"
        course = self._courses.get(task)
        begins = course is None or _begins((course.done, course.total), done, total)
        if course is None or begins:
            course = self._courses[task] = _Course(total, done, self._clock(), done, done)
        course.done, course.total = done, total
        inside_epoch = what.startswith("epoch ") and "validation" not in what
        stage = not inside_epoch and line not in self._said
        if begins or stage or _LINES * (done - course.shown) >= total:
            course.shown = done
            self._said.add(line)
            note(f"{line} ({_far(done, total)}{course.left(self._clock())})")


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command line ends quietly, as for every other output


def _errors() -> Console:
    return Console(stderr=True, highlight=False)
