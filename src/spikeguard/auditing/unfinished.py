"""Finished checks of an audit in progress, on disk: a killed audit continues after the last one.

Each check is one file: its finding, and the outcomes of the attacks that it was the first to make.
Attacks are written as the names of their classes and the values of their fields, never pickled.
"""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch

from spikeguard.attacks.base import Attack
from spikeguard.auditing.context import Attacked, Context
from spikeguard.auditing.findings import Finding, plain
from spikeguard.evaluation.result_files import PARTS
from spikeguard.preflight.quick import warn
from spikeguard.storage.atomic_files import write_json, write_npz
from spikeguard.storage.digests import content_digest

__all__ = ["UnfinishedAudit"]

_CARD = "identity.json"
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, ImportError)


class UnfinishedAudit:
    """The stored checks of one audit.

    Args:
        out: Folder of the audit; the checks are stored in a folder inside it.
        identity: Everything that findings depend on, as plain data. Checks that were stored with
            another identity are removed.
        contexts: The contexts that the checks get, by name; nothing was attacked in them yet.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], contexts: Mapping[str, Context]):
        self.folder = out / PARTS
        wanted = json.loads(json.dumps(identity))
        self._mark = content_digest(json.dumps(wanted, sort_keys=True).encode())
        self._roots = dict(contexts)
        attack = next(iter(contexts.values())).attack
        self._packages = {"spikeguard", type(attack).__module__.partition(".")[0]}
        if self.folder.exists() and _stored_identity(self.folder) != wanted:
            if any(self.folder.glob("*.npz")):
                warn([f"audit: {self.folder} is of another audit, which was not finished; removed"])
            shutil.rmtree(self.folder)
        write_json(self.folder / _CARD, wanted)

    def restore(self, code: str) -> Finding | None:
        """Return the finding of a check and restore what it attacked; None if it is not stored.

        A damaged file counts as not stored.
        """
        try:
            with (
                self._file(code).open("rb") as handle,
                np.load(handle, allow_pickle=False) as stored,
            ):
                arrays = {name: stored[name] for name in stored.files}
            card = json.loads(str(arrays["card"]))
            if (card["identity"], card["code"]) != (self._mark, code):
                return None
            finding = Finding(**card["finding"])
            for root in card["roots"].values():
                for entry in root["found"]:
                    entry["attack"] = _decoded(entry["attack"], self._packages)
                for made in root["made"].values():
                    made[:] = [_decoded(each, self._packages) for each in made]
        except (*_DAMAGE, zipfile.BadZipFile, zlib.error):
            return None
        for name, root in card["roots"].items():
            _apply(self._roots[name], name, root, arrays)
        return finding

    def store(self, code: str, finding: Finding, before: Mapping[str, Any]) -> None:
        """Store a finished check; one whose attacks cannot be written is not stored.

        Args:
            code: Code of the check.
            finding: Its finding.
            before: Result of :meth:`mark` before it ran.
        """
        arrays: dict[str, Any] = {}
        try:
            roots = {name: self._since(name, before[name], arrays) for name in self._roots}
            card = {"identity": self._mark, "code": code, "roots": roots}
            text = json.dumps({**card, "finding": plain(asdict(finding))}, allow_nan=False)
        except _DAMAGE:
            return
        write_npz(self._file(code), card=np.array(text), **arrays)

    def mark(self) -> dict[str, Any]:
        """Return how far the contexts are, for :meth:`store`."""
        return {
            name: {
                "found": {attack: len(out.right) for attack, out in root.found.items()},
                "made": {place: len(each.made) for place, each in _places(root)},
                "worsts": {place: len(each.worsts) for place, each in _places(root)},
            }
            for name, root in self._roots.items()
        }

    def _since(self, name: str, before: Any, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return what was attacked since a mark as plain data, and add its arrays."""
        root = self._roots[name]
        found: list[dict[str, Any]] = []
        for attack, outcome in root.found.items():
            done = before["found"].get(attack, 0)
            if done < len(outcome.right):
                key = f"{name}:{len(found)}"
                arrays[f"right:{key}"] = outcome.right[done:].numpy()
                arrays[f"x:{key}"] = outcome.x_adv[done:].numpy()
                found.append({"attack": self._written(attack), "from": done, "key": key})
        made, worsts = {}, {}
        for place, context in _places(root):
            new = list(context.made)[before["made"].get(place, 0) :]
            made[place] = [self._written(attack) for attack in new]
            keys = []
            for number, worst in enumerate(context.worsts[before["worsts"].get(place, 0) :]):
                keys.append(f"worst:{name}:{place}:{number}")
                arrays[keys[-1]] = worst.numpy()
            worsts[place] = keys
        return {"found": found, "made": made, "worsts": worsts, "violations": root.violations}

    def _written(self, attack: Attack) -> Any:
        text = _encoded(attack)
        if _decoded(text, self._packages) != attack:
            raise TypeError("an attack that is not the values of its fields")
        return text

    def _file(self, code: str) -> Path:
        return self.folder / f"{code}.npz"


def _stored_identity(folder: Path) -> Any:
    try:
        return json.loads((folder / _CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _places(context: Context, place: str = "") -> Iterator[tuple[str, Context]]:
    """Yield a context and its parts, each with the sizes that lead to it: "64/24"."""
    yield place, context
    for size, part in context.parts.items():
        yield from _places(part, f"{place}/{size}")


def _apply(root: Context, name: str, stored: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Restore in a context what a check attacked."""
    for entry in stored["found"]:
        key = entry["key"]
        right, x_adv = (torch.from_numpy(arrays[f"{kind}:{key}"]) for kind in ("right", "x"))
        old = root.found.get(entry["attack"])
        if old is not None:
            right = torch.cat([old.right[: entry["from"]], right])
            x_adv = torch.cat([old.x_adv[: entry["from"]], x_adv])
        root.found[entry["attack"]] = Attacked(right, x_adv)
    for place, made in stored["made"].items():
        context = root
        for size in filter(None, place.split("/")):
            context = context.first(int(size))
        for attack in made:
            outcome = root.found[attack]
            context.made[attack] = Attacked(
                outcome.right[: len(context)], outcome.x_adv[: len(context)]
            )
        context.worsts.extend(torch.from_numpy(arrays[key]) for key in stored["worsts"][place])
    root.violations.clear()
    root.violations.update(stored["violations"])


def _encoded(part: Any) -> Any:
    """Write an attack as plain data: names of classes and functions, and values of fields."""
    if is_dataclass(part) and not isinstance(part, type):
        values = {f.name: _encoded(getattr(part, f.name)) for f in fields(part) if f.init}
        return {"class": f"{type(part).__module__}:{type(part).__qualname__}", "fields": values}
    if isinstance(part, FunctionType):
        return {"function": f"{part.__module__}:{part.__qualname__}"}
    if isinstance(part, tuple):
        return {"tuple": [_encoded(item) for item in part]}
    if part is None or isinstance(part, bool | int | float | str):
        return part
    raise TypeError(f"cannot write {type(part).__name__}")


def _decoded(text: Any, packages: set[str]) -> Any:
    """Return what :func:`_encoded` wrote; only classes and functions of these packages."""
    if not isinstance(text, dict):
        return text
    if "tuple" in text:
        return tuple(_decoded(item, packages) for item in text["tuple"])
    module, _, names = str(text.get("class", text.get("function"))).partition(":")
    if module.partition(".")[0] not in packages:
        raise ValueError(f"{module} is no module of an attack")
    part: Any = sys.modules.get(module)
    if part is None:
        part = import_module(module) if module.startswith("spikeguard.") else None
    for name in names.split("."):
        part = getattr(part, name)
    if "function" in text:
        if not isinstance(part, FunctionType):
            raise TypeError(f"{names} is no function")
        return part
    if not (isinstance(part, type) and is_dataclass(part)):
        raise TypeError(f"{names} is no dataclass")
    return part(**{name: _decoded(value, packages) for name, value in text["fields"].items()})
