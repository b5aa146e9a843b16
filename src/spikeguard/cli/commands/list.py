"""``spikeguard list``: list the names that recipes and commands take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal

from spikeguard.cli.console import say, table
from spikeguard.config.errors import ConfigError

__all__ = ["list_"]

_PRINTED = "printed"

Kind = Literal[
    "neurons",
    "surrogates",
    "encoders",
    "models",
    "datasets",
    "attacks",
    "gradients",
    "suites",
    "defences",
    "audits",
    "recipes",
    "kernels",
]

_REGISTRIES = {
    "neurons": "spikeguard.neurons:NEURONS",
    "surrogates": "spikeguard.neurons:SURROGATES",
    "encoders": "spikeguard.encoders:ENCODERS",
    "models": "spikeguard.models:MODELS",
    "datasets": "spikeguard.data:DATASETS",
    "attacks": "spikeguard.attacks:ATTACKS",
    "gradients": "spikeguard.attacks:GRADIENTS",
    "suites": "spikeguard.attacks:SUITES",
    "defences": "spikeguard.defences:DEFENCES",
    "audits": "spikeguard.auditing:CHECKS",
    "kernels": "spikeguard.kernels:KERNELS",
}


def list_(kind: Kind | None = None, prefix: str = "", /) -> int:
    """List the names that recipes and commands take; without a kind, all names in short.

    Args:
        kind: Kind of names, one line each. Recipes are listed with the numbers of their papers.
        prefix: Only names with this prefix, for example tgo/ for recipes. The full name of a recipe
            also shows the choices made where its paper is unclear.
    """
    if kind is None:
        kinds = (*_REGISTRIES, "recipes")
        table(("kind", "names"), [(each, _in_short(each)) for each in kinds])
        say()
        say("'spikeguard list KIND' describes them.")
        return 0
    found = [row for row in _described(kind, full=True).items() if row[0].startswith(prefix)]
    if not found:
        raise ConfigError(f"no {kind} begin with {prefix!r}; leave it out to see all.")
    if kind != "recipes":
        table((kind, "what it is"), found)
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
    from spikeguard.config.published import row
    from spikeguard.config.schema import load_recipe

    for key in load_recipe(recipe).published:
        printed = row(key)
        numbers = (printed.accuracies.get(attack) for attack in ("clean", "fgsm", "pgd7"))
        shown = " / ".join("-" if number is None else f"{number:g}" for number in numbers)
        return f"{shown}  ({printed.short})"
    return ""


def _described(kind: str, *, full: bool = False) -> dict[str, str]:
    """Return names with a one-line description of each; without ``full`` it may be empty."""
    if kind == "recipes":
        from spikeguard.config.yaml_files import read, recipe_names

        return {name: str(read(name).get("title", "")) if full else "" for name in recipe_names()}
    module, _, registry = _REGISTRIES[kind].partition(":")
    entries: Mapping[str, Any] = getattr(import_module(module), registry)
    describe: Callable[[Any], str] = _normalisation if kind == "datasets" else _first_line
    found = {name: describe(entry) for name, entry in entries.items()}
    if full and kind == "kernels":
        return {name: f"{_state(name)}. {line}" for name, line in found.items()}
    return found


def _first_line(entry: Any) -> str:
    return (inspect.getdoc(entry) or "").partition("\n")[0].replace("``", "")


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
