"""Attack lines such as ``"mtpgd steps=40 eot=3"``: one attack by name, with its settings.

A line is the name of an attack in ``ATTACKS`` and words ``key=value``:

* a key is an argument of the attack's class, or ``gradient``, ``loss``, ``surrogate`` or ``eot``;
* ``gradient=assg gradient.A=0.45`` and ``surrogate=atan surrogate.alpha=2`` set the options of a
  part. A surrogate alone is that of ``SwapSurrogate``; a number widens the own surrogate;
* a value is a number (``40``, ``2/255``), ``true``, ``false`` or a name. ``0.01@8/255`` is 0.01 at
  the radius 8/255, and in proportion at any other. An empty value is the default.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.base import EoT
from spikeguard.attacks.gradients.mean_field import MeanField
from spikeguard.attacks.losses import LOSSES, TARGETED_LOSSES, Loss
from spikeguard.attacks.registry import ATTACKS, GRADIENTS
from spikeguard.attacks.threat import Threat
from spikeguard.neurons.surrogate import SURROGATES
from spikeguard.system.pixel_units import fraction_text

__all__ = ["PARTS", "AttackLine", "averaged", "losses_of", "parse_line"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FRACTION = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?")
_WHOLE = re.compile(r"[-+]?\d+")
_SWAP = "swap-surrogate"
PARTS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "gradient": GRADIENTS,
    "inner": GRADIENTS,
    "surrogate": SURROGATES,
}


@dataclass(frozen=True)
class Scaled:
    """A length that is in proportion to the radius: ``length`` at the radius ``at``."""

    length: float
    at: float

    def __str__(self) -> str:
        return f"{fraction_text(self.length)}@{fraction_text(self.at)}"


@dataclass(frozen=True)
class AttackLine:
    """One attack by name, with its settings; see :func:`parse_line`.

    Attributes:
        name: Key of ``ATTACKS``, or ``package.module:Attack``.
        options: Settings by key; a part with options is a mapping with a ``name``.
        eot: Gradients averaged in every step, as the line states it; None where it does not.
    """

    name: str
    options: Mapping[str, Any]
    eot: int | None = None

    def entry(self, eps: float) -> dict[str, Any]:
        """Return the settings at a radius, as an entry of a recipe."""
        return {"name": self.name, **_at(self.options, eps)}

    def build(self, threat: Threat, eot: int = 1) -> Attack:
        """Return the attack, without checking the settings' types; ``eot`` if the line has none."""
        built = _built(ATTACKS, self.entry(threat.eps), threat=threat)
        attack: Attack = averaged(built, self.eot or eot)
        return attack

    @property
    def label(self) -> str:
        """The line in its shortest form, the same for all spellings, without ``eot``."""
        factory = ATTACKS.get(self.name)
        name = self.name.partition(":")[2].lower() or self.name
        return " ".join([name, *_written(factory, self.options, "")])


def parse_line(line: str) -> AttackLine:
    """Read an attack line; names and types are not checked.

    Raises:
        ValueError: If a word is not ``key=value``, a key is given twice, or ``eot`` is no number.

    Example:
        >>> parse_line("pgd steps=20 eot=3").options
        {'steps': 20}
    """
    name, *settings = line.split() or [""]
    if not name or "=" in name:
        raise ValueError(
            f"an attack is a name and settings, such as 'pgd steps=40 eot=3'; got {line!r}"
        )
    options: dict[str, Any] = {}
    for word in settings:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ValueError(f"settings are key=value, such as steps=40; got {word!r}")
        _set(options, key.split("."), _value(text), key)
    eot = options.pop("eot", None)
    if eot is not None and (type(eot) is not int or eot < 1):
        raise ValueError(f"eot counts gradients, >= 1, got {eot!r}")
    _move_surrogate(options)
    if _name(options.get("gradient")) == "eot":
        raise ValueError("gradient=eot: write eot=K for the mean over K draws")
    return AttackLine(name, _without_default(options), eot)


def averaged(attack: Any, eot: int) -> Any:
    """Return an attack whose gradient is averaged over ``eot`` draws.

    An attack without a gradient, and one on the mean field, which draws nothing, stay as they are.
    """
    gradient = getattr(attack, "gradient", None)
    if eot == 1 or gradient is None or isinstance(gradient, MeanField) or not is_dataclass(attack):
        return attack
    return replace(attack, gradient=EoT(eot, gradient))  # type: ignore[type-var]


def losses_of(annotation: object) -> Mapping[str, Callable[..., Any]]:
    """Return the losses by name that fit a parameter: plain, or towards a target class."""
    return LOSSES if annotation == Loss else TARGETED_LOSSES


def _value(text: str) -> Any:
    length, at, radius = text.partition("@")
    if at:
        size, place = _number(length), _number(radius)
        numbers = isinstance(size, int | float) and isinstance(place, int | float)
        return Scaled(size, place) if numbers and min(size, place) > 0 else text
    return _number(text)


def _number(text: str) -> Any:
    """Read a number, a fraction, a truth value or nothing; other text stays text."""
    named = {"": None, "null": None, "true": True, "false": False}
    if text in named:
        return named[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    found = _FRACTION.fullmatch(text)
    if found is None or (found[2] is not None and float(found[2]) == 0):
        return text
    return float(found[1]) / float(found[2] or 1)


def _set(options: dict[str, Any], keys: list[str], value: Any, whole: str) -> None:
    """Set a dotted key; a part named before keeps its name."""
    *parts, last = keys
    for part in parts:
        inner = options.get(part)
        options[part] = dict(inner) if isinstance(inner, Mapping) else {"name": inner}
        options = options[part]
    if isinstance(options.get(last), Mapping) and options[last]["name"] is None:
        options[last]["name"] = value  # the option came before the part's name
        return
    if last in options:
        raise ValueError(f"{whole} is given twice")
    options[last] = value


def _move_surrogate(options: dict[str, Any]) -> None:
    """Make a surrogate of the line that of its gradient: of ``SwapSurrogate`` where none is."""
    surrogate = options.pop("surrogate", None)
    if surrogate is None:
        return
    gradient = options.get("gradient") or _SWAP
    inner = dict(gradient) if isinstance(gradient, Mapping) else {"name": gradient}
    if "surrogate" in inner:
        raise ValueError("surrogate and gradient.surrogate are the same; give one")
    options["gradient"] = {**inner, "surrogate": surrogate}


def _without_default(options: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in options.items() if value is not None}
    return {k: _without_default(v) if isinstance(v, Mapping) else v for k, v in kept.items()}


def _at(value: Any, eps: float) -> Any:
    """Return the settings at a radius; a length that becomes 0 is left to its default."""
    if isinstance(value, Mapping):
        found = {key: _at(inner, eps) for key, inner in value.items()}
        return {key: inner for key, inner in found.items() if inner is not None}
    if isinstance(value, Scaled):
        return value.length / value.at * eps or None
    return value


def _built(registry: Mapping[str, Callable[..., Any]], entry: Any, **given: Any) -> Any:
    spec = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    factory = registry[spec.pop("name")]
    for key, value in spec.items():
        if key in PARTS and isinstance(value, str | Mapping):
            spec[key] = _built(PARTS[key], value)
        elif key == "loss":
            annotation = inspect.signature(factory, eval_str=True).parameters[key].annotation
            spec[key] = losses_of(annotation)[value]
    return factory(**given, **spec)


def _name(part: Any) -> Any:
    return part.get("name") if isinstance(part, Mapping) else part


def _written(
    factory: Callable[..., Any] | None, options: Mapping[str, Any], prefix: str
) -> list[str]:
    """Return the words of options that differ from the defaults, in the order of the signature."""
    known = {} if factory is None else inspect.signature(factory).parameters
    order = {key: place for place, key in enumerate(known)}
    words: list[str] = []
    for key in sorted(options, key=lambda each: (order.get(each, len(order)), each)):
        value = options[key]
        if key == "name" or (key in known and _is_default(value, known[key].default)):
            continue
        if key in PARTS and isinstance(value, str | Mapping):
            words += _part_written(key, value, prefix)
        else:
            words.append(f"{prefix}{key}={_text(value)}")
    return words


def _part_written(key: str, part: Any, prefix: str) -> list[str]:
    name, options = _name(part), part if isinstance(part, Mapping) else {}
    inside = _written(PARTS[key].get(str(name)), options, f"{prefix}{key}.")
    if (key, name, prefix) == ("gradient", _SWAP, ""):  # the short form
        return [word.removeprefix("gradient.") for word in inside]
    return [f"{prefix}{key}={name}", *inside]


def _is_default(value: Any, default: Any) -> bool:
    if _name(value) == "backprop":
        return True
    if callable(default) and isinstance(value, str):
        return bool(value == getattr(default, "__name__", None))
    return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return fraction_text(value) if isinstance(value, int | float) else str(value)
