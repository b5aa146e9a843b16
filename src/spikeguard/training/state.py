"""How far a training run is, and the metrics it has gathered on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """How far a training run is; a checkpoint stores it.

    Attributes:
        epoch: Finished epochs.
        batch: Optimiser steps done in the running epoch.
        samples: Images trained on in the running epoch.
        correct: How many of them were classified right, as they were shown.
        losses: Sum over them of every loss term.
        seconds: Time spent in the running epoch, over all sittings.
        history: One object for each finished epoch, the lines of metrics.jsonl.
    """

    epoch: int = 0
    batch: int = 0
    samples: int = 0
    correct: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def count(self, losses: Mapping[str, float], correct: int, samples: int) -> None:
        """Add the mean losses of some images of the running epoch."""
        self.samples += samples
        self.correct += correct
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value * samples

    def means(self) -> dict[str, float]:
        """Return the mean of every loss term in the running epoch."""
        return {name: total / self.samples for name, total in self.losses.items()}

    def best(self) -> dict[str, Any]:
        """Return the epoch of highest validation accuracy; of equals, the earliest."""
        return max(self.history, key=lambda line: line["val_accuracy"])

    def next_epoch(
        self, epochs: int, lr: float, val_loss: float, val_accuracy: float
    ) -> TrainState:
        """Return the start of the next epoch, the metrics of this one (of ``epochs``) added."""
        terms = self.means()
        line = {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * self.batch,
            "lr": lr,
            "progress": (self.epoch + 1) / epochs,
            "train_loss": sum(terms.values()),
            "train_accuracy": self.correct / self.samples,
            "terms": terms,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "seconds": self.seconds,
        }
        return TrainState(epoch=self.epoch + 1, history=[*self.history, line])

    def text(self, epochs: int) -> str:
        """Say in one line where the run is."""
        if self.batch:
            return (
                f"epoch {self.epoch + 1}/{epochs}  loss {sum(self.means().values()):.3f}  "
                f"accuracy {self.correct / self.samples:.1%}"
            )
        best = self.best()
        return (
            f"epoch {self.epoch}/{epochs}  validation {self.history[-1]['val_accuracy']:.1%}  "
            f"best {best['val_accuracy']:.1%} in epoch {best['epoch']}"
        )
