"""The option --json: one JSON object on standard output, everything else on standard error."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import asdict, is_dataclass
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = ["SCHEMA", "AsJson", "is_json", "prose_on_stderr", "write_result"]

SCHEMA = "spikeguard/1"
"""Version of the JSON objects, described in docs/json.md."""

AsJson = Annotated[bool, Parameter(name="--json", negative="")]

Write = Callable[[str], object]
_OUTPUT: ContextVar[Write | None] = ContextVar("output", default=None)


def is_json(words: Sequence[str]) -> bool:
    """Whether a command line has the option."""
    return any(word in ("--json", "--json=true") for word in words)


@contextmanager
def prose_on_stderr(*, process: bool) -> Iterator[None]:
    """Send all that is printed inside the block to standard error, except results.

    Args:
        process: Whether to redirect the file descriptor, which other processes and compiled code
            write to as well.
    """
    with _redirected() if process else _replaced():
        yield


def write_result(command: str, result: Mapping[str, Any]) -> None:
    """Write the result of a command as one JSON object to standard output.

    Args:
        command: Its name, such as "attack" or "data check".
        result: Plain data, dataclasses and paths; a number that is not finite becomes null.
    """
    card = {"schema": SCHEMA, "command": command, **_plain(result)}
    write = _OUTPUT.get() or sys.stdout.write
    write(dumps(card, indent=1, allow_nan=False) + "\n")


@contextmanager
def _replaced() -> Iterator[None]:
    before = _OUTPUT.set(sys.stdout.write)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _OUTPUT.reset(before)


@contextmanager
def _redirected() -> Iterator[None]:
    sys.stdout.flush()
    descriptor = sys.stdout.fileno()
    output = os.dup(descriptor)

    def write(text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(output, data) :]

    before = _OUTPUT.set(write)
    os.dup2(sys.stderr.fileno(), descriptor)
    try:
        yield
    finally:
        _OUTPUT.reset(before)
        sys.stdout.flush()
        os.dup2(output, descriptor)
        os.close(output)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
