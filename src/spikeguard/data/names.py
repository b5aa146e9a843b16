"""The error for a name that a registry does not have."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["unknown_name"]


def unknown_name(what: str, name: str, table: Iterable[str], also: str = "") -> ValueError:
    """Return the error for an unknown name: the nearest name, all names, and what else is taken."""
    names = list(table)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ValueError(f"load: unknown {what} {name!r}.{hint} Known: {', '.join(names)}{also}.")
