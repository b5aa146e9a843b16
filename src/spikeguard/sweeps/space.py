"""The space of a sweep: one dimension for each recipe field that varies."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from spikeguard.config.errors import ConfigError
from spikeguard.config.instantiate import parse_number

__all__ = ["MOST", "Dimension", "Value", "changes_of", "grid", "parse_dimension", "point_key"]

Value = float | int | str
MOST = 10_000  # values of a range, points of a grid
_WHOLE = re.compile(r"[-+]?\d+")
_SHORT = ("neuron.", "encoder.", "surrogate.")  # short for model.neuron. and so on


@dataclass(frozen=True)
class Dimension:
    """One field and its values.

    Args:
        field: Path in the recipe, such as "model.neuron.v_th" or "objective.tgo.lambda_max"; or
            "model.neuron.tau", a time constant >= 1 that sets decay = 1 - 1/tau and
            input_scale = 1/tau.
        values: The values of a grid, none twice; in increasing order for a range.
        ranged: Whether a search may take any value between the first and the last.
        log: Whether the values of a range are spaced by equal factors.

    Raises:
        ConfigError: If there are no values, or one is given twice.
    """

    field: str
    values: tuple[Value, ...]
    ranged: bool = False
    log: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError(f"{self.field}: no values; write {self.field}=0.1,0.2 or 0.1:1:5.")
        if len(set(self.values)) < len(self.values):
            given = ", ".join(map(str, self.values))
            raise ConfigError(f"{self.field}: a value is given twice, got {given}.")

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(isinstance(value, int) for value in self.values)


def parse_dimension(text: str) -> Dimension:
    """Read a dimension.

    Args:
        text: ``FIELD=low:high:n``, n values from low to high; ``FIELD=low:high:n:log``, spaced by
            equal factors; or ``FIELD=a,b,c``. ``neuron.`` is short for ``model.neuron.``. A list or
            a mapping in brackets is one value.

    Raises:
        ConfigError: If the text is none of these, or a range is empty or reversed.

    Example:
        >>> parse_dimension("neuron.v_th=0.5:1.5:3")
        Dimension(field='model.neuron.v_th', values=(0.5, 1.0, 1.5), ranged=True, log=False)
    """
    field, equals, given = text.partition("=")
    field = field.strip()
    if not equals or not field or not given.strip():
        raise ConfigError(
            f"{text!r}: a dimension is FIELD=low:high:n or FIELD=a,b,c, such as "
            "neuron.v_th=0.5:1.5:5."
        )
    if field.startswith(_SHORT):
        field = f"model.{field}"
    given = given.strip()
    if given.startswith(("[", "{")):  # a list or a mapping is one value
        return Dimension(field, (given,))
    if not isinstance(parse_number(given.partition(":")[0]), float) or ":" not in given:
        parts = [part.strip() for part in given.split(",")]
        if "" in parts:
            raise ConfigError(f"{field}: a value between two commas is empty, got {given!r}.")
        return Dimension(field, tuple(map(_value, parts)))
    low, high, n, log = _range(field, given)
    if log:
        inner = [low * (high / low) ** (place / (n - 1)) for place in range(1, n - 1)]
    else:
        inner = [low + (high - low) * place / (n - 1) for place in range(1, n - 1)]
    rounded = [float(f"{value:.10g}") for value in (low, *inner, high)]
    whole = all(value.is_integer() for value in rounded) and not re.search(r"[.eE]", given)
    values = tuple(int(value) if whole else value for value in rounded)
    return Dimension(field, values, ranged=True, log=log)


def _range(field: str, given: str) -> tuple[float, float, int, bool]:
    ends, log = given.split(":"), False
    if len(ends) == 4 and ends[3] == "log":
        ends, log = ends[:3], True
    numbers = [parse_number(end) for end in ends]
    if len(ends) != 3 or not all(isinstance(each, float | int) for each in numbers):
        raise ConfigError(f"{field}: a range is low:high:n or low:high:n:log, got {given!r}.")
    low, high, n = (float(each) for each in numbers if isinstance(each, float | int))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{field}: a range goes from low to high, got {given!r}.")
    if n != int(n) or n < 2:
        raise ConfigError(f"{field}: a range has a whole number of values >= 2, got {given!r}.")
    if n > MOST:
        raise ConfigError(f"{field}: a range has at most {MOST:,} values, got {given!r}.")
    if log and low <= 0:
        raise ConfigError(f"{field}: values spaced by equal factors are > 0, got {given!r}.")
    return low, high, int(n), log


def _value(text: str) -> Value:
    found = parse_number(text)
    if _WHOLE.fullmatch(text):
        return int(text)
    return found if isinstance(found, float | int) else text


def grid(dimensions: Sequence[Dimension]) -> list[dict[str, Value]]:
    """Return every combination of values, the last dimension varying fastest."""
    names = [each.field for each in dimensions]
    return [
        dict(zip(names, values, strict=True))
        for values in product(*(each.values for each in dimensions))
    ]


def point_key(point: Mapping[str, Value]) -> str:
    """Return a point as text; equal for equal points, 1 and 1.0 included."""
    exact = {name: float(v) if isinstance(v, int) else v for name, v in point.items()}
    return json.dumps(exact, sort_keys=True)


def changes_of(point: Mapping[str, Any]) -> list[str]:
    """Return the changes of a recipe that a point of the space stands for.

    Raises:
        ConfigError: If a time constant is no number >= 1.

    Example:
        >>> changes_of({"model.neuron.tau": 2.0, "train.epochs": 3})
        ['model.neuron.decay=0.5', 'model.neuron.input_scale=0.5', 'train.epochs=3']
    """
    found = []
    for field, value in point.items():
        if field.endswith("neuron.tau"):
            if not isinstance(value, float | int) or value < 1:
                raise ConfigError(f"{field}: a time constant in steps is >= 1, got {value}.")
            stem = field.removesuffix("tau")
            found += [f"{stem}decay={1 - 1 / value!r}", f"{stem}input_scale={1 / value!r}"]
        else:
            found.append(f"{field}={value!r}" if isinstance(value, float) else f"{field}={value}")
    return found
