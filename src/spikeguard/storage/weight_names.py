"""Names in a state dict: match those of a file to those of a model, whatever wrapped either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

__all__ = ["fitted"]

_COMPILED = "_orig_mod"  # torch.compile, around any module
_WRAPPERS = (_COMPILED, "module", "model", "net")

Value = TypeVar("Value")


def fitted(found: Mapping[str, Value], wanted: Iterable[str]) -> dict[str, Value]:
    """Return a state dict under the names of a model, where only wrappers differ.

    torch.compile adds ``_orig_mod.`` to names, DataParallel ``module.``, and a class around the
    network often ``model.`` or ``net.``; they may be combined, in the file, in the model, or both.
    Names that fit no name of the model are returned without such a prefix.

    Args:
        found: A state dict.
        wanted: The model's names.

    Example:
        >>> fitted({"_orig_mod.module.fc.weight": 1}, ["model.fc.weight"])
        {'model.fc.weight': 1}
    """
    wanted = list(wanted)
    if set(found) == set(wanted):
        return dict(found)
    theirs, ours = _bare(list(found)), _bare(wanted)
    if len(set(theirs.values())) < len(found) or len(set(ours.values())) < len(wanted):
        return dict(found)  # two names would become one
    back = {bare: name for name, bare in ours.items()}
    return {back.get(theirs[name], theirs[name]): value for name, value in found.items()}


def _bare(names: list[str]) -> dict[str, str]:
    """Return each name without the wrappers: compiled ones anywhere, others around all names."""
    parts = {name: [part for part in name.split(".") if part != _COMPILED] for name in names}
    while names and all(len(p) > 1 and p[0] in _WRAPPERS for p in parts.values()):
        first = {p[0] for p in parts.values()}
        if len(first) > 1:
            break
        parts = {name: p[1:] for name, p in parts.items()}
    return {name: ".".join(p) for name, p in parts.items()}
