"""Commands started as several ranks: one that all run together, and ones that the first rank runs.

The first rank, or the first task of an array that begins, writes to the terminal. Every other rank
writes to ``RUN/ranks/rank-NAME.log``, and to the terminal only an error that is its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from spikeguard.cli.one_writer import folder_of, one_writer
from spikeguard.config.errors import ConfigError
from spikeguard.storage.claims import Claims
from spikeguard.storage.folder_lock import joined
from spikeguard.storage.members import RANKS
from spikeguard.system.environment import code_version
from spikeguard.system.errors import is_user_error
from spikeguard.system.ranks import Rank, this_rank

__all__ = ["Together", "first_rank_only", "run_by_ranks", "together"]

_Command = TypeVar("_Command", bound=Callable[..., int])

_OWN = {"jobs", "json", "check", "data_root", "rescore"}  # options in which ranks may differ


@dataclass
class Together:
    """How this process works with the other ranks.

    Attributes:
        rank: Which rank it is.
        leads: Whether it writes to the terminal.
        claims: The claims of the ranks.
        began: Whether it takes part in the work; an error before that is one that all ranks have.
    """

    rank: Rank
    leads: bool
    claims: Claims
    began: bool = False


_TOGETHER: ContextVar[Together | None] = ContextVar("together", default=None)


def together() -> Together | None:
    """Return how the present command works with other ranks; None for a process alone."""
    return _TOGETHER.get()


def first_rank_only(command: _Command) -> _Command:
    """Run a command in the first rank; the others return 0 at once."""

    @wraps(command)
    def in_first_rank(*words: Any, **options: Any) -> int:
        rank = this_rank()
        return command(*words, **options) if rank is None or rank.first else 0

    return in_first_rank  # type: ignore[return-value]


def run_by_ranks(command: _Command) -> _Command:
    """Run a command in all ranks, which join the folder of its results; alone, lock the folder."""
    alone = one_writer(command)

    @wraps(command)
    def in_all_ranks(run: Path | None = None, /, **options: Any) -> int:
        rank, folder = this_rank(), folder_of(run, options)
        if rank is None:
            return alone(run, **options)
        if folder is None or (folder.is_dir() and not os.access(folder, os.W_OK)):
            return alone(run, **options) if rank.first else 0
        if options.get("jobs", 1) != 1:
            raise ConfigError(
                f"--jobs: the {rank.size} ranks share the images; leave it out, or start one "
                "process."
            )
        settings = {f"--{n}": str(v) for n, v in options.items() if n not in _OWN and v is not None}
        settings["code version"] = code_version()
        with joined(folder, str(rank), settings) as alone_here:
            leads = alone_here if rank.in_array else rank.first
            this = Together(rank, leads, Claims(folder / RANKS, {"rank": str(rank)}))
            token = _TOGETHER.set(this)
            try:
                if leads:
                    return command(run, **options)
                log = folder / RANKS / f"rank-{rank.name}.log"
                return _logged(this, log, lambda: command(run, **options))
            finally:
                _TOGETHER.reset(token)

    return in_all_ranks  # type: ignore[return-value]


def _logged(this: Together, file: Path, command: Callable[[], int]) -> int:
    """Run a command, write all its output to a log, and return its exit code.

    An error that the first rank reports too is for the log alone. The tasks of an array have files
    of their own for their errors.
    """
    with file.open("a", buffering=1, encoding="utf-8", errors="backslashreplace") as log:
        try:
            with redirect_stdout(log), redirect_stderr(log):
                return command()
        except KeyboardInterrupt as error:
            log.write(f"{this.rank}: ended by a signal; finished images are kept\n")
            return 130 if type(error) is KeyboardInterrupt else 143
        except Exception as error:
            log.write(f"{this.rank}: {type(error).__name__}: {error}\n")
            if not (this.began or this.rank.in_array) and is_user_error(error):
                return 2
            raise
