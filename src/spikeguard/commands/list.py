"""``spikeguard list``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal

from spikeguard.commands.console import say, table

__all__ = ["list_"]

Kind = Literal[
    "neurons",
    "surrogates",
    "encoders",
    "models",
    "datasets",
    "attacks",
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
    "suites": "spikeguard.attacks:SUITES",
    "defences": "spikeguard.defences:DEFENCES",
    "audits": "spikeguard.auditing:CHECKS",
    "kernels": "spikeguard.kernels:KERNELS",
}


def list_(kind: Kind | None = None, /) -> int:
    """List what recipes and commands can name; without a kind, all names at a glance.

    Args:
        kind: What to list, one line each.
    """
    if kind is None:
        kinds = (*_REGISTRIES, "recipes")
        table(("kind", "names"), [(each, ", ".join(_described(each))) for each in kinds])
        say()
        say("'spikeguard list KIND' describes them.")
    else:
        table((kind, "what it is"), list(_described(kind, full=True).items()))
    return 0


def _described(kind: str, *, full: bool = False) -> dict[str, str]:
    """Return names with a line on each; without ``full`` the lines may be empty."""
    if kind == "recipes":
        from spikeguard.recipes import read, recipe_names

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
    """Say where a kernel is in use on this machine, or why it is not."""
    import torch

    from spikeguard.kernels import default_kernel, why_not

    reason = why_not(kernel)
    if reason is not None:
        return f"not available: {reason}"
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    used = [name for name in devices if default_kernel(torch.device(name)) == kernel]
    return f"in use on {' and '.join(used)}" if used else "available"


def _normalisation(entry: Any) -> str:
    numbers = (", ".join(f"{value:g}" for value in values) for values in (entry.mean, entry.std))
    return "mean {}; standard deviation {}".format(*numbers)
