"""Recipe files in YAML: found by path or name, extended, changed by ``key=value``."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from spikeguard.config.errors import ConfigError
from spikeguard.config.yaml_loader import MAX_BYTES, MAX_DEPTH, Dumper, load_yaml

__all__ = ["dump", "merge", "other_names", "override", "read", "recipe_names"]

_PACKAGED = Path(str(files("spikeguard.recipes")))
_SECTIONS = ("", "data", "model", "train", "evaluate")
_OWN = ("name", "title", "published")  # keys that are not inherited
_LEVELS, _PARENTS = 32, 32  # of extends
_JOINED = "readings"  # inherited entries are kept, and new ones are appended


def recipe_names(prefix: str = "") -> list[str]:
    """Return the names of the recipes that ship with SpikeGuard, each recipe once.

    Files whose name begins with "_" exist only to be extended and are left out.

    Args:
        prefix: Only names with this prefix.
    """
    left_out = _parts() | other_names().keys()
    return sorted(name for name in _packaged() - left_out if name.startswith(prefix))


@cache
def other_names() -> Mapping[str, str]:
    """Return the recipe that each other name stands for.

    A file of the package that only extends one recipe is another name of that recipe.
    """
    names = sorted(_packaged() - _parts())
    found = {name: _same_as(parse(_text(_PACKAGED / f"{name}.yaml"), name)) for name in names}
    return {name: target for name, target in found.items() if target is not None}


def read(recipe: str | Path) -> dict[str, Any]:
    """Read a recipe and everything it extends into one plain mapping.

    ``extends`` names a recipe that ships with SpikeGuard, or a file relative to the extending file;
    of several, later ones override earlier ones. Mappings are merged, lists and values are
    replaced, and ``null`` restores the default. An entry with another name replaces the whole
    entry. An objective written as a mapping changes and adds pieces by name and keeps all others.
    A recipe without a name is named after its file. Name, title and published rows are not
    inherited, except by another name of a recipe (:func:`other_names`); readings are, and new ones
    are appended.

    Args:
        recipe: A path, or the name of a recipe that ships with SpikeGuard. Of a name that only one
            recipe ends with, the folder may be left out: "nmnist-tgo" is "events/nmnist-tgo".

    Raises:
        ConfigError: If there is no such recipe or several, it is not a YAML mapping, or it extends
            itself.
    """
    found = _read(_find(str(recipe), base=None), (), {})
    if isinstance(found.get("objective"), Mapping):
        found["objective"] = _pieces([], found["objective"])
    return found


def merge(below: Mapping[str, Any], above: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Merge ``above`` into ``below``; ``None`` removes a key, and readings are appended."""
    if path not in _SECTIONS and above.get("name", below.get("name")) != below.get("name"):
        below = {}
    merged = {key: copy.deepcopy(value) for key, value in below.items() if value is not None}
    for key, value in above.items():
        if isinstance(value, Mapping) and not path and isinstance(merged.get(key), list):
            merged[key] = _pieces(merged[key], value)
        elif isinstance(value, Mapping):
            under = merged.get(key)
            under = {"name": under} if isinstance(under, str) else under
            inside = f"{path}.{key}" if path else str(key)
            merged[key] = merge(under if isinstance(under, Mapping) else {}, value, inside)
        elif value is None:
            merged.pop(key, None)
        elif key == _JOINED and not path:
            known, more = (
                each if isinstance(each, list) else [each] for each in (merged.get(key, []), value)
            )
            merged[key] = [*known, *(each for each in more if each not in known)]
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _pieces(below: list[Any], above: Mapping[str, Any]) -> list[Any]:
    """Merge pieces by name into a list of pieces; ``None`` removes a piece."""
    entries = [{"name": piece} if isinstance(piece, str) else dict(piece) for piece in below]
    found = {entry.get("name"): entry for entry in entries}
    for name, options in above.items():
        if options is None:
            found.pop(name, None)
        elif isinstance(options, Mapping):
            found[name] = merge(found.get(name, {"name": name}), options, f"objective.{name}")
        else:
            raise ConfigError(
                f"objective.{name}: the options of a piece are a mapping, got {options!r}; write "
                f"{name}: {{}} for none, or a list of pieces."
            )
    return list(found.values())


def override(raw: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Apply changes such as ``model.T=8`` or ``objective.at.eps=8/255``, from left to right.

    Args:
        raw: A recipe from :func:`read`; it is not changed.
        changes: ``key=value`` with a dotted key and a value in YAML. A list entry is addressed by
            its name or its index from 0. An empty value restores the default.

    Raises:
        ConfigError: If a change has no ``=``, its value is not YAML, or its key does not exist.
    """
    changed = copy.deepcopy(dict(raw))
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{change!r}: write key=value, for example model.T=8.")
        steps = key.strip().split(".")
        if len(steps) > MAX_DEPTH:
            raise ConfigError(f"a key of {len(steps)} steps; no recipe is that deep: {key[:40]}...")
        try:
            value = load_yaml(text)
        except ConfigError as error:
            shown = text if len(text) <= 40 else f"{text[:40]}..."
            raise ConfigError(f"{key}: {shown!r} is no YAML value: {error}.") from error
        _set(changed, steps, value)
    return changed


def dump(raw: Mapping[str, Any]) -> str:
    """Return a mapping as YAML text that :func:`read` turns back into the same mapping."""
    return yaml.dump(dict(raw), Dumper=Dumper, sort_keys=False, width=100, allow_unicode=True)


@lru_cache(maxsize=256)  # many recipes extend the same few files
def parse(text: str, what: str) -> Mapping[str, Any]:
    """Parse a YAML mapping: YAML 1.2 scalars (1e-3 is a number, "on" is text), no key twice."""
    try:
        raw = load_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{what}: a recipe is a mapping of sections, got {type(raw).__name__}.")
    return raw


def _find(recipe: str, base: Path | None) -> Path:
    path = Path(recipe).expanduser() if base is None else base / recipe
    is_file = path.suffix in (".yaml", ".yml")
    if is_file and path.is_file():
        return path
    if not is_file and recipe in (_packaged() - _parts() if base is None else _packaged()):
        return _PACKAGED / f"{recipe}.yaml"
    if is_file:
        raise ConfigError(f"recipe {recipe}: no such file.")
    if base is None:
        ending = [name for name in recipe_names() if name.endswith(f"/{recipe}")]
        if len(ending) == 1:
            return _PACKAGED / f"{ending[0]}.yaml"
        if ending:
            raise ConfigError(
                f"recipe {recipe!r}: several end with that name, write one of {', '.join(ending)}."
            )
    close = difflib.get_close_matches(recipe, recipe_names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"unknown recipe {recipe!r}.{hint} 'spikeguard list recipes' shows those that ship with "
        "SpikeGuard; a file of your own ends in .yaml."
    )


@cache
def _packaged() -> frozenset[str]:
    """Return the names of all recipe files that ship with SpikeGuard."""
    found = (path.relative_to(_PACKAGED) for path in _PACKAGED.rglob("*.yaml"))
    return frozenset(path.with_suffix("").as_posix() for path in found)


@cache
def _parts() -> frozenset[str]:
    """Return the names of the recipe files that exist only to be extended."""
    return frozenset(name for name in _packaged() if name.rpartition("/")[2].startswith("_"))


def _same_as(raw: Mapping[str, Any]) -> str | None:
    """Return the recipe that a file is another name of, or None."""
    target = raw.get("extends")
    return target if len(raw) == 1 and isinstance(target, str) else None


def _read(path: Path, above: tuple[Path, ...], known: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Read a recipe below those that extend it; ``known`` holds the finished ones by path."""
    path = path.resolve()
    chain = (*above, path)
    if path in above:
        raise ConfigError(f"recipe extends itself: {' -> '.join(_name(p) for p in chain)}.")
    if path in known:
        return known[path]
    if len(above) > _LEVELS:
        raise ConfigError(f"recipe {_name(chain[0])}: more than {_LEVELS} levels of extends.")
    raw = dict(parse(_text(path), f"recipe {_name(path)}"))
    same = _same_as(raw) if _name(path) in _packaged() - _parts() else None
    if same is not None:
        return _read(_find(same, base=path.parent), chain, known)
    parents = raw.pop("extends", [])
    parents = parents if isinstance(parents, list) else [parents]
    if len(parents) > _PARENTS:
        raise ConfigError(f"extends in recipe {_name(path)}: more than {_PARENTS} entries.")
    below: dict[str, Any] = {}
    for parent in parents:
        if not isinstance(parent, str):
            raise ConfigError(f"extends in recipe {_name(path)}: names or paths, got {parent!r}.")
        inherited = _read(_find(parent, base=path.parent), chain, known)
        below = merge(below, {key: v for key, v in inherited.items() if key not in _OWN})
    known[path] = {"name": _name(path), **merge(below, raw)}
    return known[path]


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"recipe {_name(path)}: more than {MAX_BYTES >> 10} KiB; no recipe is.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {_name(path)}: not a text file in UTF-8.") from error


def _name(path: Path) -> str:
    inside = path.is_relative_to(_PACKAGED.resolve())
    named = path.relative_to(_PACKAGED.resolve()) if inside else Path(path.name)
    plain = os.fsencode(named.with_suffix("").as_posix())  # a file name may be no text
    return plain.decode(errors="replace")


def _set(raw: dict[str, Any], steps: list[str], value: object) -> None:
    """Set a value at a dotted key; missing mappings are created, list entries must exist."""
    here: Any = raw
    for depth, step in enumerate(steps):
        last = depth == len(steps) - 1
        path = ".".join(steps[: depth + 1])
        place: Any = step
        if isinstance(here, list):
            place = _place(here, step, path)
        if last:
            if value is None and isinstance(here, dict):
                here.pop(place, None)
            else:
                here[place] = value
            return
        inner = here[place] if isinstance(here, list) else here.get(place)
        inner = {"name": inner} if isinstance(inner, str) else {} if inner is None else inner
        if not isinstance(inner, dict | list):
            raise ConfigError(f"{'.'.join(steps)}: {path} is the value {inner!r}, it has no keys.")
        here[place] = inner
        here = inner


def _place(entries: list[Any], step: str, path: str) -> int:
    """Return the index of a list entry, by its name or its index."""
    names = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
    if step in names:
        return names.index(step)
    if step.isdecimal() and int(step) < len(entries):
        return int(step)
    named = ", ".join(str(name) for name in names) or "none"
    raise ConfigError(
        f"{path}: there is no such entry; there are {named}, also numbered from 0. To add a "
        "piece, write a recipe that extends this one."
    )
