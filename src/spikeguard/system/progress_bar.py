"""Progress bars on a terminal, and the default progress of evaluate, audit and train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from spikeguard.system.progress import Progress, ProgressCallback, TaskProgressCallback

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["begins", "progress_bars", "progress_text", "shown_progress", "standard_error"]

_COUNTED = 2000  # units; a larger total is shown in per cent


@contextmanager
def shown_progress(progress: Progress, task: str) -> Iterator[ProgressCallback | None]:
    """Yield the callback of a function's ``progress`` argument.

    "auto" is a bar on standard error if that is a terminal, else None. A callback and None are
    yielded as they are.

    Raises:
        ValueError: If it is neither "auto", None nor callable.
    """
    if progress != "auto":
        if progress is not None and not callable(progress):
            raise ValueError(
                f"{task}: progress is 'auto', None or a callback (done, total, what), "
                f"got {progress!r}."
            )
        yield progress
        return
    console = standard_error()
    if not console.is_terminal:
        yield None
        return
    with progress_bars(console) as board:
        yield partial(board, task)


@contextmanager
def progress_bars(console: Console) -> Iterator[TaskProgressCallback]:
    """Show a bar with the time left for each task; bars of finished tasks are hidden."""
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        rows: dict[str, TaskID] = {}
        places: dict[str, tuple[int, int]] = {}

        def update(task: str, done: int, total: int, what: str) -> None:
            if task not in rows:
                rows[task] = bars.add_task(task, total=None, text="")
            elif begins(places[task], done, total):
                bars.reset(rows[task])
            places[task] = done, total
            bars.update(
                rows[task],
                completed=done,
                total=total,
                description=f"{task}: {what}",
                visible=done < total,
                text=progress_text(done, total),
            )

        yield update


def begins(before: tuple[int, int], done: int, total: int) -> bool:
    """Whether a task starts another piece of work, such as the next file of a download."""
    was_done, was_total = before
    return done < was_done or (was_done >= was_total and (done, total) != before)


def progress_text(done: int, total: int) -> str:
    """Format the progress of a task: in units for a small total, else in per cent."""
    return f"{done}/{total}" if total <= _COUNTED else f"{100 * done / total:.0f} %"


def standard_error() -> Console:
    """Return a console on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
