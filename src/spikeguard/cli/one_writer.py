"""one_writer: a command holds the lock of the folder of its results while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["folder_of", "one_writer"]

_Command = TypeVar("_Command", bound=Callable[..., int])


def one_writer(command: _Command) -> _Command:
    """Lock the folder of RUN, or that of the results of ``--model``, while a command runs.

    A folder that cannot be written is not locked here: stored results can still be read from it,
    and what has to be written is refused before it is computed.
    """

    @wraps(command)
    def locked_command(run: Path | None = None, /, **options: Any) -> int:
        from spikeguard.storage.folder_lock import locked

        folder = folder_of(run, options)
        if folder is None:
            return command(run, **options)
        with locked(folder, if_writable=True):
            return command(run, **options)

    return locked_command  # type: ignore[return-value]


def folder_of(run: Path | None, options: Mapping[str, Any]) -> Path | None:
    """Return the folder to which a command writes its results.

    None if nothing is written, or if the command itself says what is wrong.
    """
    from spikeguard.runs.foreign_model import results_folder

    model = options.get("model")
    folder = run if run is not None else model and results_folder(model, options.get("out"))
    if not folder or options.get("rescore") or (run is not None and not run.is_dir()):
        return None
    return Path(folder)
