"""Training state: epoch and step counters, running losses and the metrics of finished epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """Progress of a training run; every checkpoint stores it.

    Attributes:
        epoch: Number of finished epochs.
        batch: Optimiser steps finished in the current epoch.
        samples: Images trained on in the current epoch.
        correct: Number of these classified correctly, after any perturbation.
        losses: Sum over these images of each loss term.
        unweighted: For each term before weighting, and each of its layers, the sum over images and
            their number, which is smaller than ``samples`` if an earlier version began the epoch.
        seconds: Time spent in the current epoch, including time before a resume.
        history: One object per finished epoch, the lines of metrics.jsonl.
    """

    epoch: int = 0
    batch: int = 0
    samples: int = 0
    correct: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    unweighted: dict[str, tuple[float, int]] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_json(cls, stored: Any, epochs: int, steps: int) -> TrainState:
        """Return a state that a checkpoint stored.

        Args:
            stored: ``asdict`` of a state, read from JSON.
            epochs: Number of epochs of the run.
            steps: Optimiser steps of an epoch.

        Raises:
            ValueError: If a field is missing, unknown, of another type or out of range; the message
                names it.
        """
        kinds: dict[str, Any] = {"losses": dict, "history": list, "seconds": (int, float)}
        kinds["unweighted"] = dict
        names = [each.name for each in fields(cls)]
        if isinstance(stored, dict):
            stored = {"unweighted": {}, **stored}  # which older versions did not store
        if not isinstance(stored, dict) or stored.keys() != set(names):
            raise ValueError(f"position has the fields {', '.join(names)}")
        for name in names:
            value = stored[name]
            if not isinstance(value, kinds.get(name, int)) or isinstance(value, bool):
                raise ValueError(f"position.{name} cannot be {value!r}")
        most = {"epoch": epochs, "batch": steps}  # all steps: stopped before the validation
        for name in ("epoch", "batch", "samples", "correct", "seconds"):
            if not 0 <= stored[name] <= most.get(name, math.inf):
                raise ValueError(f"position.{name}={stored[name]} is out of range")
        state = cls(**stored)
        if state.correct > state.samples or (state.samples > 0) != (state.batch > 0):
            raise ValueError("position.samples does not fit position.batch and position.correct")
        if not all(_is_number(value) for value in state.losses.values()):
            raise ValueError("position.losses holds a value that is no finite number")
        for pair in state.unweighted.values():
            if not (
                isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_number, pair))
            ):
                raise ValueError("position.unweighted holds a value that is no pair of numbers")
        if len(state.history) != state.epoch:
            raise ValueError(
                f"position.history has {len(state.history)} epochs, position.epoch is {state.epoch}"
            )
        for number, line in enumerate(state.history, start=1):
            if not _is_line(line, number):
                raise ValueError(f"position.history[{number - 1}] is no line of metrics")
        return state

    def count(self, losses: Mapping[str, float], correct: int, samples: int) -> None:
        """Add the mean losses of some images to the current epoch."""
        self.samples += samples
        self.correct += correct
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value * samples

    def measure(self, values: Mapping[str, float], samples: int) -> None:
        """Add terms before weighting, means over some images, to the current epoch."""
        for name, value in values.items():
            total, count = self.unweighted.get(name, (0.0, 0))
            self.unweighted[name] = (total + value * samples, count + samples)

    def means(self) -> dict[str, float]:
        """Return the mean of each loss term in the current epoch."""
        return {name: total / self.samples for name, total in self.losses.items()}

    def best(self, by_loss: bool = False) -> dict[str, Any]:
        """Return the best epoch, the earliest of equal ones; without validation, the latest epoch.

        Args:
            by_loss: Choose the lowest validation loss instead of the highest validation accuracy.
        """
        if self.history[-1]["val_accuracy"] is None:
            return self.history[-1]
        if by_loss:
            return min(self.history, key=lambda line: line["val_loss"])
        return max(self.history, key=lambda line: line["val_accuracy"])

    def stopped(self, patience: int | None) -> bool:
        """Whether the validation loss has not fallen for more than ``patience`` epochs."""
        if patience is None or not self.history:
            return False
        return self.epoch - int(self.best(by_loss=True)["epoch"]) > patience

    def next_epoch(
        self, epochs: int, lr: float, val_loss: float | None, val_accuracy: float | None
    ) -> TrainState:
        """Return the state at the start of the next epoch, with this epoch's metrics added.

        Args:
            epochs: Number of epochs of the run.
            lr: Learning rate of the last step.
            val_loss: Validation loss; None without validation images.
            val_accuracy: Validation accuracy, in [0, 1]; None without validation images.
        """
        terms = self.means()
        line = {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * self.batch,
            "lr": lr,
            "progress": (self.epoch + 1) / epochs,
            "train_loss": sum(terms.values()),
            "train_accuracy": self.correct / self.samples,
            "terms": terms,
            "unweighted": {name: total / n for name, (total, n) in self.unweighted.items()},
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "seconds": self.seconds,
        }
        return TrainState(epoch=self.epoch + 1, history=[*self.history, line])

    def text(self, epochs: int, by_loss: bool = False) -> str:
        """Return a one-line progress text; ``by_loss`` as for :meth:`best`."""
        if self.batch:
            return (
                f"epoch {self.epoch + 1}/{epochs}  loss {sum(self.means().values()):.3f}  "
                f"accuracy {self.correct / self.samples:.1%}"
            )
        best = self.best(by_loss)
        if best["val_accuracy"] is None:
            return f"epoch {self.epoch}/{epochs}  loss {best['train_loss']:.3f}"
        return (
            f"epoch {self.epoch}/{epochs}  validation {self.history[-1]['val_accuracy']:.1%}  "
            f"best {best['val_accuracy']:.1%} in epoch {best['epoch']}"
        )


def _is_line(line: Any, epoch: int) -> bool:
    """Whether a value is the line of metrics of an epoch, with or without a validation."""
    if not (isinstance(line, dict) and line.get("epoch") == epoch):
        return False
    if not isinstance(line.get("terms"), dict):
        return False
    measured = ["train_loss", "train_accuracy", "seconds", "lr"]
    if (line.get("val_loss"), line.get("val_accuracy")) != (None, None):
        measured += ["val_loss", "val_accuracy"]
    shares = [line[name] for name in measured if name.endswith("accuracy") and name in line]
    return all(_is_number(line.get(name)) for name in measured) and all(0 <= s <= 1 for s in shares)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
