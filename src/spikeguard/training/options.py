"""Options of a training run: epochs, optimiser, learning-rate schedule, precision, seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import nn

from spikeguard.training.averaging import WeightAverage

__all__ = ["TrainOptions"]

OptimizerName = Literal["sgd", "adam", "adamw"]
Schedule = Literal["cosine", "constant"]
PrecisionName = Literal["32", "bf16", "16"]


@dataclass(frozen=True)
class TrainOptions:
    r"""The options of one training run.

    Args:
        epochs: Passes over the training images, >= 1.
        batch_size: Images per optimiser step, >= 1; the last batch of an epoch may be smaller.
        optimizer: "sgd", "adam" or "adamw".
        lr: Learning rate at the start, > 0.
        momentum: Momentum of SGD, in [0, 1); Adam and AdamW do not use it.
        weight_decay: L2 penalty, >= 0, on all parameters except those that a module lists in its
            attribute ``undecayed``. Of AdamW it is the decay apart from the gradient, times lr.
        schedule: "constant", or "cosine": lr (1 + cos(pi p)) / 2 with p the finished share of all
            optimiser steps, so that the rate changes with every step and ends near 0.
        warmup: Share of all optimiser steps, in [0, 1), in which the rate rises linearly from 0 to
            lr; p is then the finished share of the others.
        precision: "32"; "bf16" or "16" for automatic mixed precision ("16" needs a CUDA device).
            Attacks on the training images run in the same precision.
        accumulate: Split each batch into this many parts and add their gradients, to save memory.
            The step equals that of the whole batch, except that batch normalisation uses the
            statistics of each part.
        seed: Seed of every random stream of the run.
        patience: Stop when the validation loss has not fallen for more than this many epochs, >= 0;
            the best epoch is then the one of lowest validation loss. None runs all epochs, and the
            best epoch is the one of highest validation accuracy.
        measure_idle: Also log the unweighted terms of pieces of weight 0. Such a piece is skipped
            otherwise, so this costs the passes that it would need; the weights stay the same.
        checkpoint_activations: Keep only the inputs of blocks of layers for the backward pass and
            run the blocks again there: the same training, bit for bit, in less memory and with one
            more forward pass for each backward pass; see
            :func:`spikeguard.models.activation_checkpointing.checkpointed`.
        sync_batchnorm: Where several ranks train together, normalise batches by the statistics of
            the whole batch, as one process does. False uses those of each rank's share, like
            ``accumulate``; the running statistics are then the means over ranks.
        ema: Validate, keep and evaluate an exponential average of the weights after each step
            instead of the weights; its decay, in (0, 1), see
            :class:`~spikeguard.training.averaging.WeightAverage`. None keeps the weights.
        swa: The same with the mean of the weights since this share of the optimiser steps, in
            [0, 1); not together with ema.
        checkpoint_seconds: Seconds between checkpoints within an epoch, >= 0; 0 saves after every
            step. A checkpoint is also saved at the end of each epoch.

    Raises:
        ValueError: If an option is out of its range.
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: OptimizerName = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    precision: PrecisionName = "32"
    accumulate: int = 1
    seed: int = 0
    checkpoint_seconds: float = 300.0
    patience: int | None = None
    measure_idle: bool = False
    checkpoint_activations: bool = False
    sync_batchnorm: bool = True
    warmup: float = 0.0
    ema: float | None = None
    swa: float | None = None

    added_later: ClassVar[tuple[str, ...]] = (
        "patience",
        "measure_idle",
        "warmup",
        "ema",
        "swa",
        "sync_batchnorm",
        "checkpoint_activations",
    )

    def __post_init__(self) -> None:
        self._take_plain_numbers()
        for field in ("epochs", "batch_size", "accumulate"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"TrainOptions: {field} is a whole number >= 1, got {value!r}.")
        if self.patience is not None and not (
            isinstance(self.patience, int) and self.patience >= 0
        ):
            raise ValueError(
                f"TrainOptions: patience is a whole number of epochs >= 0, got {self.patience!r}."
            )
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"TrainOptions: accumulate={self.accumulate} parts need a batch_size of at least "
                f"{self.accumulate}, got {self.batch_size}."
            )
        if not isinstance(self.sync_batchnorm, bool):
            raise ValueError(
                f"TrainOptions: sync_batchnorm is true or false, got {self.sync_batchnorm!r}."
            )
        for field, words in (
            ("optimizer", OptimizerName),
            ("schedule", Schedule),
            ("precision", PrecisionName),
        ):
            if getattr(self, field) not in get_args(words):
                raise ValueError(
                    f"TrainOptions: {field} is one of {', '.join(get_args(words))}; "
                    f"got {getattr(self, field)!r}."
                )
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"TrainOptions: lr must be positive, got {self.lr:g}.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"TrainOptions: momentum must be in [0, 1), got {self.momentum:g}.")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"TrainOptions: weight_decay is >= 0, got {self.weight_decay:g}.")
        if not 0 <= self.warmup < 1:
            raise ValueError(
                f"TrainOptions: warmup is a share of the steps in [0, 1), got {self.warmup:g}."
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(
                f"TrainOptions: ema is a decay in (0, 1), such as 0.999, got {self.ema:g}; leave "
                "it out for no average."
            )
        if self.swa is not None and not 0 <= self.swa < 1:
            raise ValueError(
                f"TrainOptions: swa is a share of the steps in [0, 1), got {self.swa:g}; leave it "
                "out for no average."
            )
        if self.ema is not None and self.swa is not None:
            raise ValueError(
                f"TrainOptions: one average of the weights, got ema={self.ema:g} and "
                f"swa={self.swa:g}; leave one out."
            )
        if not (self.checkpoint_seconds >= 0 and math.isfinite(self.checkpoint_seconds)):
            raise ValueError(
                f"TrainOptions: checkpoint_seconds is >= 0, got {self.checkpoint_seconds:g}."
            )

    def _take_plain_numbers(self) -> None:
        """Turn numbers of numpy into Python's, which a checkpoint can hold."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, each.name, value.item())

    def identity(self) -> dict[str, Any]:
        """Return the options as a mapping, without those added later that have their default.

        A run of an earlier version, which lacks these options, can therefore be resumed.
        """
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in self.added_later or getattr(self, each.name) != each.default
        }

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return a new optimiser over the parameters of ``model``."""
        undecayed = set(_undecayed(model))
        groups: list[dict[str, Any]] = [
            {"params": [p for p in model.parameters() if p not in undecayed]}
        ]
        if undecayed:
            rest = [p for p in model.parameters() if p in undecayed]
            groups.append({"params": rest, "weight_decay": 0.0})
        if self.optimizer != "sgd":
            kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
            return kind(groups, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def learning_rate(self, progress: float) -> float:
        """Return the learning rate of the next step at a finished share in [0, 1]."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        if self.schedule == "constant":
            return self.lr
        done = (progress - self.warmup) / (1 - self.warmup)
        return 0.5 * self.lr * (1 + math.cos(math.pi * done))

    def build_average(self, model: nn.Module) -> WeightAverage | None:
        """Return a new average of the weights of ``model``; None where none is asked for."""
        if self.ema is None and self.swa is None:
            return None
        return WeightAverage(model, ema=self.ema, swa=self.swa)


def _undecayed(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters that modules exclude from weight decay."""
    for module in model.modules():
        for name in getattr(module, "undecayed", ()):
            if getattr(module, name) is not None:
                yield getattr(module, name)
