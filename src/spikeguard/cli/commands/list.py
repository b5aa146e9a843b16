"""``spikeguard list``: list the names that recipes and commands take."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal

from spikeguard.cli.console import say, table
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.config.errors import ConfigError

__all__ = ["list_"]

_PRINTED = "printed"
# attacks whose printed numbers are listed with a recipe, and how a note on one begins
_SHOWN = {"clean": "", "fgsm": "FGSM: ", "pgd7": "PGD-7: "}

Kind = Literal[
    "neurons",
    "surrogates",
    "encoders",
    "models",
    "datasets",
    "attacks",
    "gradients",
    "losses",
    "suites",
    "defences",
    "audits",
    "analyses",
    "metrics",
    "recipes",
    "kernels",
]

_EMPTY = "An empty value follows from the others; 'spikeguard list {} NAME' says how."
_SET = {  # kinds whose entries are listed with their settings
    "attacks": 'In an attack line: --attack "mtpgd steps=40 momentum=0.9 eot=3". '
    + _EMPTY.format("attacks"),
    "analyses": 'In an analysis line: spikeguard analyse RUN "zeros limit=64". '
    + _EMPTY.format("analyses"),
    "gradients": 'In an attack line: --attack "pgd gradient=hart gradient.gamma=0.5". '
    + _EMPTY.format("gradients"),
    "surrogates": 'In an attack line: --attack "pgd surrogate=atan surrogate.alpha=2". '
    + _EMPTY.format("surrogates"),
}

_REGISTRIES = {
    "neurons": "spikeguard.neurons:NEURONS",
    "surrogates": "spikeguard.neurons:SURROGATES",
    "encoders": "spikeguard.encoders:ENCODERS",
    "models": "spikeguard.models:MODELS",
    "datasets": "spikeguard.data:DATASETS",
    "attacks": "spikeguard.attacks:ATTACKS",
    "gradients": "spikeguard.attacks:GRADIENTS",
    "losses": "spikeguard.attacks:ALL_LOSSES",
    "suites": "spikeguard.attacks:SUITES",
    "defences": "spikeguard.defences:DEFENCES",
    "audits": "spikeguard.auditing:CHECKS",
    "analyses": "spikeguard.analysis:ANALYSES",
    "metrics": "spikeguard.sweeps.metrics:METRICS",
    "kernels": "spikeguard.kernels:KERNELS",
}


def list_(kind: Kind | None = None, prefix: str = "", /, *, json: AsJson = False) -> int:
    """List the names that recipes and commands take; without a kind, all names in short.

    Args:
        kind: Kind of names, one line each. Recipes are listed with the numbers of their papers,
            attacks, gradients and surrogates with their settings and defaults.
        prefix: Only names with this prefix, for example tgo/ for recipes. The full name of a recipe
            also shows the choices made where its paper is unclear, that of an attack what its
            settings mean, that of a suite its attack lines.
        json: Print the names as JSON and nothing else on standard output.
    """
    if kind is None:
        kinds = (*_REGISTRIES, "recipes")
        table(("kind", "names"), [(each, _in_short(each)) for each in kinds])
        say()
        say("'spikeguard list KIND' describes them.")
        if json:
            write_result("list", {"kinds": {each: list(_described(each)) for each in kinds}})
        return 0
    found = [row for row in _described(kind, full=True).items() if row[0].startswith(prefix)]
    if not found:
        raise ConfigError(f"no {kind} begin with {prefix!r}; leave it out to see all.")
    if json:
        names = [{"name": name, "description": line} for name, line in found]
        write_result("list", {"kind": kind, "names": names})
    if kind in _SET:
        table((kind, "what it is", "settings"), [(*row, _settings(kind, row[0])) for row in found])
        say()
        say(_SET[kind])
        if len(found) == 1:
            _show_arguments(kind, found[0][0])
        return 0
    if kind != "recipes":
        table((kind, "what it is"), found)
        if kind == "suites" and len(found) == 1:
            _show_lines(found[0][0])
        return 0
    table((kind, "what it is", _PRINTED), [(*row, _printed(row[0])) for row in found])
    say()
    say("Printed: accuracy in % that a paper prints at eps 8/255, clean / FGSM / PGD-7.")
    chosen = [name for name, _ in found if name == prefix or len(found) == 1]
    for name in chosen:
        _show_readings(name)
    if not chosen:
        say("'spikeguard list recipes NAME' shows the choices made where its paper is unclear.")
    return 0


def _show_readings(recipe: str) -> None:
    """Write the points that a recipe's source leaves open, and the choices made."""
    from spikeguard.config.schema import load_recipe

    for reading in load_recipe(recipe).readings:
        say(f"* {reading}")


def _in_short(kind: str) -> str:
    """Return the names of all entries; for recipes, those of their folders."""
    if kind != "recipes":
        return ", ".join(_described(kind))
    folders = [name.partition("/")[0] for name in _described(kind)]
    return ", ".join(f"{folder}/ ({folders.count(folder)})" for folder in dict.fromkeys(folders))


def _printed(recipe: str) -> str:
    """Format the numbers of the first published row of a recipe: "88.16 / 63.03 / 42.52"."""
    from spikeguard.config.protocols import size_differences
    from spikeguard.config.published import row
    from spikeguard.config.schema import load_recipe

    found = load_recipe(recipe)
    for key in found.published:
        printed = row(key)
        size = "; not at this size" if size_differences(found, printed, None) else ""
        numbers = (printed.accuracies.get(attack) for attack in _SHOWN)
        shown = " / ".join("-" if number is None else f"{number:g}" for number in numbers)
        doubts = "; ".join(
            f"{short}{printed.notes[attack]}"
            for attack, short in _SHOWN.items()
            if attack in printed.notes
        )
        return f"{shown}  ({printed.short}{size})" + (f"; {doubts}" if doubts else "")
    return ""


def _described(kind: str, *, full: bool = False) -> dict[str, str]:
    """Return names with a one-line description of each; without ``full`` it may be empty."""
    if kind == "recipes":
        return _recipes(full)
    entries = _entries(kind)
    describe: Callable[[Any], str] = _normalisation if kind == "datasets" else _first_line
    found = {name: describe(entry) for name, entry in entries.items()}
    if full and kind == "kernels":
        return {name: f"{_state(name)}. {line}" for name, line in found.items()}
    return found


def _recipes(full: bool) -> dict[str, str]:
    """Return the recipes with their titles; in full also their other names."""
    from spikeguard.config.yaml_files import other_names, read, recipe_names

    if not full:
        return dict.fromkeys(recipe_names(), "")
    found = {name: str(read(name).get("title", "")) for name in recipe_names()}
    found |= {name: f"another name of {recipe}" for name, recipe in other_names().items()}
    return dict(sorted(found.items()))


def _entries(kind: str) -> Mapping[str, Any]:
    module, _, registry = _REGISTRIES[kind].partition(":")
    entries: Mapping[str, Any] = getattr(import_module(module), registry)
    return entries


def _first_line(entry: Any) -> str:
    about = getattr(entry, "about", None)  # of a suite that is a list of lines
    return str(about) if about else _plain((inspect.getdoc(entry) or "").partition("\n")[0])


def _plain(text: str) -> str:
    """Return a docstring's text without its markup."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text)
    return re.sub(r"\\([|*_`])", r"\1", text).replace("``", "")


def _settings(kind: str, name: str) -> str:
    """Write the settings of an entry with their defaults: "steps=10 step_size= loss=dlr"."""
    words = []
    for key, parameter in inspect.signature(_entries(kind)[name]).parameters.items():
        default = parameter.default
        if key == "threat" or (kind, key) == ("analyses", "attack"):
            continue
        if default is parameter.empty:
            words.append(key)
            continue
        words.append(f"{key}={_default(default)}")
    return " ".join(words)


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    if isinstance(value, int | float | str):
        return str(value)
    named = getattr(value, "__name__", type(value).__name__.lower())
    return str(named)


def _show_arguments(kind: str, name: str) -> None:
    """Write what the settings of one entry mean, from its docstring."""
    text = inspect.getdoc(_entries(kind)[name]) or ""
    _, _, arguments = text.partition("Args:\n")
    lines = arguments.partition("\n\n")[0].splitlines()
    if lines:
        say()
        say(_plain(textwrap.dedent("\n".join(lines))))


def _show_lines(name: str) -> None:
    """Write the attack lines of a suite that is a list of them."""
    suite = _entries("suites")[name]
    for attack, line in getattr(suite, "attacks", {}).items():
        eot = "" if suite.eot is None else f" eot={suite.eot}"
        say(f"  {attack:<12}{line}{eot}")
    if getattr(suite, "source", ""):
        say(f"Source: {suite.source}.")


def _state(kernel: str) -> str:
    """Return the devices on which a kernel is in use, or the reason why it cannot run."""
    import torch

    from spikeguard.kernels.selection import default_kernel, why_not

    reason = why_not(kernel)
    if reason is not None:
        return f"not available: {reason}"
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    used = [name for name in devices if default_kernel(torch.device(name)) == kernel]
    return f"in use on {' and '.join(used)}" if used else "available"


def _normalisation(entry: Any) -> str:
    numbers = (", ".join(f"{value:g}" for value in values) for values in (entry.mean, entry.std))
    return "mean {}; standard deviation {}".format(*numbers)
