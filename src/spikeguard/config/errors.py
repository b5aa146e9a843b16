"""ConfigError and the helpers that write its one-line messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

__all__ = ["ConfigError", "ConfigPath", "first_problem", "raised", "unknown_name"]


class ConfigError(ValueError):
    """A recipe or command line is invalid; the message is one line: where, what, what to write."""


@dataclass(frozen=True)
class ConfigPath:
    """Path inside a recipe, for messages: ``ConfigPath("model", "recipe digits") / "neuron"``.

    Args:
        path: Dotted path inside the recipe.
        source: The file or recipe, for example "recipe digits"; or empty.
    """

    path: str
    source: str = ""

    def __truediv__(self, key: str | int) -> ConfigPath:
        return ConfigPath(f"{self.path}.{key}" if self.path else str(key), self.source)

    def __str__(self) -> str:
        return " in ".join(part for part in (self.path, self.source) if part)


def unknown_name(
    where: ConfigPath | str, what: str, name: str, known: Iterable[str]
) -> ConfigError:
    """Return the error for an unknown name, with the nearest name and all known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    place = f"{where}: " if str(where) else ""
    return ConfigError(f"{place}unknown {what} {name!r}.{hint} Known: {', '.join(names)}.")


def raised(error: BaseException) -> str:
    """Return "raises TypeError: its first line", for an error in code that is not SpikeGuard's."""
    first = str(error).partition("\n")[0]
    return f"raises {type(error).__name__}: {first}"


def first_problem(error: ValidationError) -> tuple[tuple[str | int, ...], str, object]:
    """Return path, message (no capital, no full stop) and input of the first problem."""
    problem = error.errors(include_url=False)[0]
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ").rstrip(".")
    return problem["loc"], message[:1].lower() + message[1:], problem["input"]
