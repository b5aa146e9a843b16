"""train(): fit a model to an objective; a run that is killed goes on as if it had never stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikeguard.data.images import Splits
from spikeguard.defences.objective import Objective
from spikeguard.defences.piece import Piece, Vanilla
from spikeguard.rng import stream
from spikeguard.storage import checkpoints as checkpoint
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.run_folder import BEST
from spikeguard.system.progress import ProgressCallback
from spikeguard.training.checkpointing import Checkpointer, identity, require_new_folder
from spikeguard.training.divergence import TrainingDiverged
from spikeguard.training.engine import Engine
from spikeguard.training.learner import Learner
from spikeguard.training.options import TrainOptions
from spikeguard.training.state import TrainState

__all__ = ["TrainResult", "require_new_folder", "train"]


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        path: The run folder.
        model: The trained model with the weights of the best epoch, in evaluation mode.
        best_epoch: Epoch of highest validation accuracy, from 1; of equals, the earliest.
        val_accuracy: Its accuracy on clean validation images, in [0, 1].
        history: One object for each epoch, as in metrics.jsonl.
    """

    path: Path
    model: nn.Module
    best_epoch: int
    val_accuracy: float
    history: list[dict[str, Any]]


def train(
    model: nn.Module,
    data: Splits,
    objective: Objective | Piece | None = None,
    options: TrainOptions | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    progress: ProgressCallback | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train ``model`` in place and keep everything about the run in the folder ``out``.

    After each epoch the model is validated on clean images (neuron noise on, the same draws each
    time), ``checkpoints/last`` and, after a new best, ``checkpoints/best`` are replaced, and
    ``metrics.jsonl`` is rewritten. Every random number comes from a stream named by the seed, the
    epoch and the step, so that a resumed run ends with the weights of one that was never killed:
    to the bit on a CPU with as many threads, elsewhere as far as torch is deterministic.

    Args:
        model: A classifier with the weights to start from.
        data: Its training images are fitted, its validation images choose the best epoch.
        objective: What is minimised; default plain training.
        options: Default ``TrainOptions()``.
        out: The run folder; new, or of the same run with ``resume``.
        resume: Go on from ``checkpoints/last``; start if there is none; return the result of a run
            that is finished.
        progress: Called as ``progress(steps done, steps in all, text)`` after each step and epoch.
        recipe: What the run was built from; a resumed run must have the same.

    Raises:
        ValueError: If data are no Splits; if the folder holds a run already, or another run than
            the one to be resumed; or if a piece of the objective cannot work with the others, the
            model or the options.
        TrainingDiverged: If a loss, a gradient or a weight is not finite; the checkpoint stands.
        OSError: If a file cannot be written; the last checkpoint stands.

    Example:
        >>> result = train(model, data, AT(eps=2 / 255) | TGO(), out="runs/tgo")  # doctest: +SKIP
        >>> result.val_accuracy                                                   # doctest: +SKIP
        0.93
    """
    if not isinstance(data, Splits):
        raise ValueError(
            f"train: data are Splits, got {type(data).__name__}; write sg.data.load('mnist'), or "
            "Splits(train, val, test, mean, std) of ImageSet(images, labels)."
        )
    objective = Objective.of(Vanilla() if objective is None else objective)
    options = TrainOptions() if options is None else options
    objective.require(model, options)
    if not resume:
        require_new_folder(out)
    engine = Engine(options.precision)
    folder = Checkpointer(Path(out), identity(model, data, objective, options, recipe))
    learner = Learner.create(model, data, objective, options, engine)
    at = folder.restore(learner) if resume else TrainState()

    steps = math.ceil(len(data.train) / options.batch_size)  # of one epoch
    total = options.epochs * steps
    try:
        while at.epoch < options.epochs:
            before, started, saved = at.seconds, time.monotonic(), time.monotonic()
            shuffle = stream(options.seed, "shuffle", at.epoch)
            order = torch.randperm(len(data.train), generator=shuffle)
            while at.batch < steps:
                done = at.epoch * steps + at.batch
                start = at.batch * options.batch_size
                learner.step(order[start : start + options.batch_size], at, progress=done / total)
                at.batch += 1
                at.seconds = before + time.monotonic() - started
                if progress is not None:
                    progress(done + 1, total, at.text(options.epochs))
                if at.batch < steps and time.monotonic() - saved >= options.checkpoint_seconds:
                    learner.require_finite_weights(at)
                    folder.save("last", learner, at)
                    saved = time.monotonic()

            learner.require_finite_weights(at)
            val_loss, val_accuracy = learner.validate(at)
            at.seconds = before + time.monotonic() - started
            at = at.next_epoch(options.epochs, learner.lr, val_loss, val_accuracy)
            if at.best()["epoch"] == at.epoch:
                folder.save("best", learner, at)
            folder.save("last", learner, at)  # after the best: what it calls best is on the disk
            folder.write_metrics(at)
            if progress is not None:
                progress(at.epoch * steps, total, at.text(options.epochs))
    except TrainingDiverged as error:
        error.args = (
            f"{error}; {folder.checkpoint_status()}. Try a smaller lr than {options.lr:g}.",
        )
        raise

    checkpoint.load_model(folder.path / BEST, model)
    best = at.best()
    result = {
        "best_epoch": best["epoch"],
        "val_accuracy": best["val_accuracy"],
        "epochs": at.epoch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_samples": len(data.train),
        "val_samples": len(data.val),
        "seconds": sum(line["seconds"] for line in at.history),
        "objective": repr(objective),
    }
    write_json(folder.path / "result.json", result)
    return TrainResult(folder.path, model.eval(), best["epoch"], best["val_accuracy"], at.history)
