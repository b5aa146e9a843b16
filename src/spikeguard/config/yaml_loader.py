"""YAML of recipes: scalars as in YAML 1.2, no key twice, and limits on size, depth and aliases.

A recipe is written by a person, so small limits never matter, and a file that would expand to
gigabytes is rejected while it is parsed.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from spikeguard.config.errors import ConfigError

__all__ = ["MAX_BYTES", "Dumper", "load_yaml"]

MAX_BYTES = 64 << 10  # of a file
MAX_DEPTH = 20
MAX_ALIASES = 50
MAX_NODES = 5_000  # keys, values and containers, each alias counted as what it repeats
MAX_DIGITS = 100  # characters of a number

_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("str", "int", "float", "bool", "null", "seq", "map")}


def load_yaml(text: str) -> Any:
    """Return the plain value of a YAML text: dicts, lists, text, numbers, booleans and None.

    Raises:
        ConfigError: If the text is no YAML or exceeds a limit; the message has no place and no
            full stop.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise ConfigError(f"more than {MAX_BYTES >> 10} KiB, which is not a recipe")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"line {mark.line + 1}: {problem}" if mark else problem) from error


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2, within the limits of this module."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def __init__(self, stream: str):
        super().__init__(stream)
        self._depth = 0
        self._aliases = 0
        self._nodes = 0
        self._spent: dict[str, int] = {}  # nodes inside each finished anchor

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            _require(self._aliases <= MAX_ALIASES, f"more than {MAX_ALIASES} aliases", mark)
            name = str(event.anchor)
            inside = name in self.anchors and name not in self._spent
            _require(not inside, f"alias *{name} is inside what it repeats", mark)
            self._count(self._spent.get(name, 0), mark)
            return super().compose_node(parent, index)
        self._depth += 1
        _require(self._depth <= MAX_DEPTH, f"more than {MAX_DEPTH} levels", mark)
        before = self._nodes
        self._count(1, mark)
        node = super().compose_node(parent, index)
        if event.anchor is not None:
            self._spent[event.anchor] = self._nodes - before
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        mark = node.start_mark
        _require_plain(node)
        numeric = node.tag in (_TAG + "int", _TAG + "float")
        if numeric and len(node.value) > MAX_DIGITS:
            _require(False, f"a number of {len(node.value)} characters", mark)
        try:
            if isinstance(node, yaml.ScalarNode):
                node.value.encode()  # half of a surrogate pair is not text
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, TypeError, OverflowError, AttributeError) as error:
            kind = node.tag.replace(_TAG, "!!")
            raise yaml.constructor.ConstructorError(
                problem=f"this is no {kind}", problem_mark=mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        _require(isinstance(node, yaml.MappingNode), "this is no !!map", node.start_mark)
        for key, _ in node.value:
            _require(isinstance(key, yaml.ScalarNode), "a key is a word", key.start_mark)
            _require_plain(key)
            _require(key.value not in seen, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def _count(self, nodes: int, mark: yaml.Mark) -> None:
        self._nodes += nodes
        _require(self._nodes <= MAX_NODES, f"more than {MAX_NODES} values, aliases repeated", mark)


def _require(holds: bool, problem: str, mark: yaml.Mark) -> None:
    if not holds:
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=mark)


def _require_plain(node: yaml.Node) -> None:
    """Reject tags that make anything but text, numbers, lists and mappings."""
    tag = node.tag.replace(_TAG, "!!")
    said = f"tag {tag} is not allowed; write text, a number, a list or a mapping"
    _require(node.tag in _PLAIN, said, node.start_mark)


class Dumper(yaml.SafeDumper):
    """Quotes every text that :func:`load_yaml` would not read as text."""

    def ignore_aliases(self, data: object) -> bool:
        """Write every value in full."""
        return True


_SCALARS = (
    ("bool", r"true|false|True|False", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9]\d*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?", "-+.0123456789"),
    ("null", r"~|null|", "~n\0"),
)
for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(
            _TAG + _name,
            re.compile(f"^(?:{_pattern})$"),
            [c if c != "\0" else "" for c in _first],
        )
