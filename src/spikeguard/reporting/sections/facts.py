"""Facts of the report: the settings of each network, and the machine that trained it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeguard.reporting import formatting
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.readers.foreign_model import class_names
from spikeguard.reporting.readers.training import TrainingResult

__all__ = ["Fact", "environments", "facts"]

_ENVIRONMENT = {
    "spikeguard": "SpikeGuard",
    "commit": "Commit",
    "torch": "torch",
    "numpy": "numpy",
    "python": "Python",
    "platform": "Platform",
    "cpu": "CPU",
    "cores": "CPU cores",
    "threads": "Threads of torch",
    "gpu": "GPU",
    "kernel": "Membrane kernel",
    "date": "Started (UTC)",
}


@dataclass(frozen=True)
class Fact:
    """One setting: its name, and its value for each network."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the networks have different values."""
        return len(set(self.values)) > 1


def facts(networks: Sequence[Network]) -> list[Fact]:
    """Return the settings of all networks, "unknown" where one has no such setting."""
    columns = [_facts(network) for network in networks]
    names = dict.fromkeys(name for column in columns for name in column)
    return [Fact(name, tuple(column.get(name, "unknown") for column in columns)) for name in names]


def environments(networks: Sequence[Network]) -> list[Fact]:
    """Return software and machine of the trainings; empty where nothing was trained."""
    if all(network.foreign is not None for network in networks):
        return []
    return [
        Fact(name, tuple(_place(network.environment.get(key, "unknown")) for network in networks))
        for key, name in _ENVIRONMENT.items()
    ]


def _facts(network: Network) -> dict[str, str]:
    if network.foreign is not None:
        return dict(network.foreign.facts)
    recipe, trained = network.recipe, network.trained
    assert recipe is not None and trained is not None
    model = dict(recipe.model)
    name, T = str(model.pop("name")), model.pop("T", None)
    parts = {part: model.pop(part, None) for part in ("neuron", "encoder")}
    data = recipe.data
    return {
        "Data set": data.name,
        **class_names(network.environment.get("data") or {}),
        "Training images": formatting.count(trained.train_samples),
        "Validation images": formatting.count(trained.val_samples),
        "Augmentation": ", ".join(data.augment) or "none",
        "Network": _entry({"name": name, **model}),
        "Parameters": formatting.count(trained.parameters),
        "Time steps T": "default" if T is None else _plain(T),
        "Neuron": _entry(parts["neuron"]),
        "Encoder": _entry(parts["encoder"]),
        "Objective": trained.objective,
        "Optimiser": _options(recipe.train) or "default",
        "Epochs": formatting.count(trained.epochs),
        **_chosen(trained),
        "Training time": formatting.duration(trained.seconds),
        "Seed": str(recipe.seed),
        "Source": recipe.source or "not named",
    }


def _chosen(trained: TrainingResult) -> dict[str, str]:
    """Return the best epoch and its accuracy; there is none without validation images."""
    if trained.val_accuracy is None:
        return {"Best epoch": "not chosen, the last one"}
    return {
        "Best epoch": formatting.count(trained.best_epoch),
        "Its validation accuracy": formatting.percent(trained.val_accuracy),
    }


def _place(value: Any) -> str:
    """Write a value of ``environment.json``; a time as "2026-01-02 03:04:05"."""
    text = _plain(value)
    return re.sub(r"^(\d{4}-\d\d-\d\d)T([\d:]+)\+00:00$", r"\1 \2", text)


def _entry(entry: Any) -> str:
    """Write an entry of a recipe: "lif (decay=0.5, surrogate=triangular (width=1))"."""
    if entry is None:
        return "default"
    if not isinstance(entry, Mapping):
        return _plain(entry)
    rest = {key: value for key, value in entry.items() if key != "name"}
    return f"{entry.get('name', '')} ({_options(rest)})" if rest else str(entry.get("name", ""))


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} = {_entry(value) if isinstance(value, Mapping) else _plain(value)}"
        for key, value in options.items()
        if key != "epochs"
    )


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
