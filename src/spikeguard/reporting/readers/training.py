"""Readers for ``result.json`` and ``metrics.jsonl``: outcome and curves of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeguard.reporting.readers.json_files import read_json, read_text, reading
from spikeguard.storage.digests import FILES, file_digest

__all__ = ["Epoch", "TrainingResult", "read_epochs", "read_trained"]


@dataclass(frozen=True)
class Epoch:
    """One line of ``metrics.jsonl``; accuracies in [0, 1].

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Sum of the weighted terms.
        train_accuracy: Accuracy on the training batches, perturbed if the objective perturbs.
        val_loss: The objective's classification loss on clean validation images; None without
            validation images, and for runs of an earlier version that logged another loss.
        val_accuracy: Accuracy on clean validation images; None without them.
        terms: Weighted terms by name, the classification loss first.
        unweighted: Terms before weighting; without entry for runs of an earlier version.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    terms: Mapping[str, float]
    unweighted: Mapping[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """Content of ``result.json``."""

    best_epoch: int
    val_accuracy: float | None
    epochs: int
    parameters: int
    train_samples: int
    val_samples: int
    seconds: float
    objective: str


def read_trained(path: Path) -> TrainingResult:
    """Read ``result.json``."""
    card = read_json(path)
    with reading(path):
        for name, digest in dict(card.get(FILES) or {}).items():
            if file_digest(path.with_name(name)) != digest:
                raise ValueError(f"the SHA-256 of {name} is not the one in it")
        return TrainingResult(
            best_epoch=int(card["best_epoch"]),
            val_accuracy=_optional(card["val_accuracy"]),
            epochs=int(card["epochs"]),
            parameters=int(card["parameters"]),
            train_samples=int(card["train_samples"]),
            val_samples=int(card["val_samples"]),
            seconds=float(card["seconds"]),
            objective=str(card["objective"]),
        )


def read_epochs(path: Path, epochs: int) -> tuple[Epoch, ...]:
    """Read ``metrics.jsonl``, which must have one line for each of ``epochs`` epochs."""
    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        with reading(path, f"line {number}: "):
            card = json.loads(line)
            terms = {str(name): float(value) for name, value in card["terms"].items()}
            earlier = "unweighted" not in card  # val_loss was the cross-entropy, whatever the loss
            same = not earlier or next(iter(terms)) == "cross_entropy"
            found.append(
                Epoch(
                    epoch=int(card["epoch"]),
                    train_loss=float(card["train_loss"]),
                    train_accuracy=float(card["train_accuracy"]),
                    val_loss=_optional(card["val_loss"]) if same else None,
                    val_accuracy=_optional(card["val_accuracy"]),
                    terms=terms,
                    unweighted={
                        str(name): float(value)
                        for name, value in card.get("unweighted", {}).items()
                    },
                )
            )
    if len(found) != epochs:
        raise ValueError(f"{path}: damaged: it holds {len(found)} of {epochs} epochs.")
    return tuple(found)


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
