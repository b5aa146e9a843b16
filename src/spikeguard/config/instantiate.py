"""Turn a recipe's entries into objects: ``{name: lif, decay: 0.9}`` becomes ``LIF(decay=0.9)``.

Names and keys are checked against the registry and the constructor's signature, values against its
annotations. Values that follow from the rest of the recipe (time steps, classes, image shape) are
passed in, so that a recipe states them once.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Unpack, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from spikeguard.config.contracts import contract_of
from spikeguard.config.errors import ConfigError, ConfigPath, first_problem, raised, unknown_name
from spikeguard.config.plugins import NO_PLUGINS, Plugins, is_reference

__all__ = ["instantiate", "call_checked", "parse_number"]

Registry = Mapping[str, Callable[..., Any]]

_FRACTION = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*/\s*([\d.]+(?:[eE][-+]?\d+)?)\s*")


def instantiate(
    registry: Registry,
    spec: object,
    where: ConfigPath | str,
    *,
    plugins: Plugins = NO_PLUGINS,
    **given: Any,
) -> Any:
    """Build one registry entry.

    Args:
        registry: Maps names to classes or functions.
        spec: A mapping with ``name`` and options, or only the name. A name such as
            ``my_package.parts:Mine`` is imported from another package.
        where: Path in the recipe, for messages.
        plugins: Packages that may be imported.
        **given: Values that follow from the context; an entry, and the entries inside it, receive
            those for which they have a parameter. They cannot be set in ``spec``.

    Raises:
        ConfigError: If the name or a key is unknown, a value has the wrong type, the constructor
            rejects it, or a part of another package is not allowed or breaks its contract.

    Example:
        >>> from spikeguard.neurons import SURROGATES
        >>> instantiate(SURROGATES, {"name": "triangular", "width": "1/2"}, "surrogate")
        Triangular(width=0.5)
    """
    where = ConfigPath(where) if isinstance(where, str) else where
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ConfigError(
            f"{where}: expected a name, or a mapping with 'name' and options; got {spec!r}."
        )
    name = spec["name"]
    options = {key: value for key, value in spec.items() if key != "name"}
    if is_reference(name):
        part, contract = plugins.find(name, where), contract_of(registry)
        contract.require_class(part, name, where)
        try:
            built = call_checked(part, options, where, plugins=plugins, **given)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"{where}: {name} {raised(error)}") from error
        contract.require_built(built, name, where)
        return built
    if name not in registry:
        raise unknown_name(where, "name", name, registry)
    return call_checked(registry[name], options, where, plugins=plugins, **given)


def call_checked(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    where: ConfigPath,
    *,
    plugins: Plugins = NO_PLUGINS,
    **given: Any,
) -> Any:
    """Call ``factory(**options)`` with keys and values checked; see :func:`instantiate`."""
    owner = getattr(factory, "__name__", type(factory).__name__)
    parameters = _parameters(factory)
    arguments = {name: value for name, value in given.items() if name in parameters}
    open_keys = [name for name in parameters if name not in arguments]
    entries = {}
    for key, value in options.items():
        if key in arguments:
            raise ConfigError(
                f"{where / key}: follows from the rest of the recipe; leave it out here."
            )
        if key not in parameters:
            raise unknown_name(where, f"key of {owner}", key, open_keys)
        if key in _parts() and _is_factor(parameters[key].annotation, value):
            arguments[key] = value
        elif key in _parts():
            entries[key] = value
        elif key == "loss" and get_origin(parameters[key].annotation) is Callable:
            arguments[key] = _loss(parameters[key].annotation, value, where / key)
        else:
            arguments[key] = _checked(parameters[key].annotation, value, where / key)
    if "T" in parameters:  # entries inside share T with their owner
        given = {**given, "T": arguments.get("T", parameters["T"].default)}
    for key, value in entries.items():
        arguments[key] = instantiate(_parts()[key], value, where / key, plugins=plugins, **given)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ConfigError(f"{where}: {owner} needs {name!r}; write {where.path}.{name}.")
    try:
        return factory(**arguments)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _is_factor(annotation: Any, value: object) -> bool:
    """Whether a number stands for a part, such as the factor of ``SwapSurrogate(2.0)``."""
    return type(value) in (int, float) and float in get_args(annotation)


def _loss(annotation: Any, value: object, where: ConfigPath) -> Callable[..., Any]:
    """Return the loss of an attack by its name."""
    from spikeguard.attacks.attack_lines import losses_of

    known = losses_of(annotation)
    if value not in known:
        raise unknown_name(where, "loss", str(value), known)
    return known[str(value)]


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the named parameters; ``**options: Unpack[Options]`` counts as the keys of Options."""
    parameters = {}
    for name, parameter in inspect.signature(factory, eval_str=True).parameters.items():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            parameters[name] = parameter
        elif get_origin(parameter.annotation) is Unpack and parameter.kind == parameter.VAR_KEYWORD:
            (options,) = get_args(parameter.annotation)
            for key, annotation in get_type_hints(options).items():
                parameters[key] = inspect.Parameter(
                    key,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=parameter.empty if key in options.__required_keys__ else None,
                    annotation=annotation,
                )
    return parameters


def parse_number(value: object) -> object:
    """Convert a fraction such as "8/255" or a number in quotes; return other values unchanged."""
    if not isinstance(value, str):
        return value
    fraction = _FRACTION.fullmatch(value)
    try:
        return float(fraction[1]) / float(fraction[2]) if fraction else float(value)
    except (ValueError, ZeroDivisionError):
        return value


def _checked(annotation: Any, value: object, where: ConfigPath) -> object:
    """Check a value against an annotation, strictly: neither a bool nor a text is a number.

    A YAML number may be meant as text (``precision: 16``), and a text as a number ("8/255"): both
    conversions are tried after the value itself.
    """
    if annotation is inspect.Parameter.empty:  # nothing is known: numbers may be fractions
        return _numbers(value)
    try:
        adapter = TypeAdapter(
            annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=False)
        )
    except PydanticSchemaGenerationError:
        raise ConfigError(f"{where}: cannot be written in a recipe; leave it out.") from None
    problem: ValidationError | None = None
    for reading in (value, _numbers(value), str(value)):
        try:
            # As JSON: a list passes for a tuple and an int for a float; nothing else converts.
            return adapter.validate_json(json.dumps(reading))
        except ValidationError as error:
            problem = problem or error
    assert problem is not None
    place, message, got = first_problem(problem)
    for step in place:
        where = where / step if isinstance(step, int) else where
    raise ConfigError(f"{where}: {message}, got {got!r}.") from problem


def _numbers(value: object) -> object:
    """Apply :func:`parse_number` to every value in a list or mapping."""
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    return parse_number(value)


@cache
def _parts() -> dict[str, Registry]:
    """Return the registry of each parameter whose value is an entry itself."""
    from spikeguard.attacks.attack_lines import PARTS
    from spikeguard.encoders import ENCODERS
    from spikeguard.neurons import NEURONS

    return {"neuron": NEURONS, "encoder": ENCODERS, **PARTS}
