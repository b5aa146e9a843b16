"""The training loop: `train()` minimises an objective and can resume a killed run bit for bit.

Several ranks run the same loop, each on its part of every batch. Rank 0 alone writes files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikeguard.data.images import Splits
from spikeguard.defences.objective import Objective
from spikeguard.defences.piece import Piece, Vanilla
from spikeguard.encoders.input_space import require_same_kind, space_of
from spikeguard.models.activation_checkpointing import checkpointed
from spikeguard.rng import stream
from spikeguard.storage import checkpoints as checkpoint
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import FILES, file_digest, sealed, weights_digest
from spikeguard.storage.folder_lock import locked
from spikeguard.storage.run_folder import BEST, LAST, METRICS, RESULT
from spikeguard.system.environment import code_version
from spikeguard.system.out_of_memory import OutOfMemory, is_out_of_memory
from spikeguard.system.progress import ProgressCallback
from spikeguard.system.termination import termination_deferred
from spikeguard.training.checkpointing import Checkpointer, identity, require_new_folder
from spikeguard.training.divergence import TrainingDiverged
from spikeguard.training.engine import Engine, LogName, require_log
from spikeguard.training.learner import Learner
from spikeguard.training.options import TrainOptions
from spikeguard.training.outputs import require_outputs
from spikeguard.training.state import TrainState
from spikeguard.training.world import ALONE, World

__all__ = ["TrainResult", "require_new_folder", "require_parts", "train"]


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        path: The run folder.
        model: The trained model with the weights of the best epoch, in evaluation mode.
        best_epoch: Epoch of highest validation accuracy, from 1; the earliest of equal ones.
            Without validation images it is the last epoch, with ``patience`` the one of lowest
            validation loss.
        val_accuracy: Accuracy of that epoch on clean validation images, in [0, 1]; or None.
        history: One object per epoch, as in metrics.jsonl.
    """

    path: Path
    model: nn.Module
    best_epoch: int
    val_accuracy: float | None
    history: list[dict[str, Any]]


def train(
    model: nn.Module,
    data: Splits,
    objective: Objective | Piece | None = None,
    options: TrainOptions | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    log: LogName | None = None,
    progress: ProgressCallback | None = None,
    recipe: Mapping[str, Any] | None = None,
    world: World = ALONE,
) -> TrainResult:
    """Train ``model`` in place and write the run to the folder ``out``.

    Each epoch ends with a validation on clean images (neuron noise on, the same draws each time).
    Then ``checkpoints/last`` and, after a new best, ``checkpoints/best`` are replaced, and
    ``metrics.jsonl`` is rewritten. Without validation images there is no ``checkpoints/best``.

    With ``ema`` or ``swa`` the averaged weights are validated, kept in both checkpoints and
    returned; those in training are kept beside them, to resume.

    Every random stream is named by the seed, the epoch and the step, so a resumed run ends with the
    same weights as an uninterrupted one: bit for bit on a CPU with the same number of threads,
    elsewhere as far as torch is deterministic. On SIGTERM the step is finished and a checkpoint
    saved before the signal takes effect.

    Several ranks share each batch and give the weights of one process up to rounding. A run can be
    resumed by another number of ranks.

    Args:
        model: A classifier; training starts from its weights.
        data: Training images to fit, and validation images, if any, to choose the best epoch.
        objective: The objective to minimise; default plain training.
        options: Default ``TrainOptions()``.
        out: The run folder: a new one, or with ``resume`` that of the same run.
        resume: Continue from ``checkpoints/last``; start a new run if there is none. For a finished
            run, return its result.
        log: "tensorboard" also writes the numbers of each epoch as TensorBoard events to
            ``tensorboard/``; a resumed run writes those of all epochs anew.
        progress: Called as ``progress(steps done, total steps, text)`` after each step and epoch.
        recipe: The recipe of the run; a resumed run must have the same one.
        world: The ranks that train together, all of which call this function with the same
            arguments; see ``spikeguard.training.engine.joined``. Default this process alone.

    Raises:
        FolderLocked: If another process trains in the folder; nothing was changed.
        ValueError: If ``data`` is not a Splits, or the model does not take it or has fewer outputs
            than there are labels; if the folder holds a run already, or a different run from the
            one to resume; or if a piece of the objective rejects the other pieces, the model or
            the options; or if the ranks have different models, data, options or versions of the
            code, or do not divide the batch.
        RankLost: If another rank fails or dies; the last checkpoint is kept.
        OutOfMemory: If the memory is not enough; the last checkpoint is kept.
        TrainingDiverged: If a loss, a gradient or a weight is not finite; the last checkpoint is
            kept.
        OSError: If a file cannot be written; the last checkpoint is kept.

    Example:
        >>> result = train(model, data, AT(eps=2 / 255) | TGO(), out="runs/tgo")  # doctest: +SKIP
        >>> result.val_accuracy                                                   # doctest: +SKIP
        0.93
    """
    if not isinstance(data, Splits):
        raise ValueError(
            f"train: data must be Splits, got {type(data).__name__}; write "
            "sg.data.load('mnist'), or sg.data.make_splits(images) of "
            "sg.data.from_arrays(x, y)."
        )
    objective = Objective.of(Vanilla() if objective is None else objective)
    options = TrainOptions() if options is None else options
    require_same_kind(space_of(model), data.train.space, "train")
    objective.require(model, options)
    require_outputs(model, data, options.seed)
    if options.checkpoint_activations:
        with checkpointed(model):  # a network that cannot is rejected before anything is written
            pass
    if options.patience is not None:
        data.validation(f"patience={options.patience}")
    if world.size > 1:
        require_parts(len(data.train), options, world.size)
    with world.together():
        if world.is_first and not resume:
            require_new_folder(out)
        require_log(log)
    engine = Engine(options.precision, log=None if log is None else Path(out), world=world)
    run = identity(model, data, objective, options, recipe)
    if world.size > 1:
        facts = {"code": code_version(), "weights": weights_digest(model.state_dict())}
        world.require_equal({**facts, **run})
    with ExitStack() as stack:
        with world.together():
            if world.is_first:
                stack.enter_context(locked(out))
                if not resume:  # another process may have trained meanwhile
                    require_new_folder(out)
        checkpointer = Checkpointer(Path(out), run)
        learner = Learner.create(model, data, objective, options, engine)
        shown = progress if world.is_first else None
        stack.callback(engine.close)
        # a caller may have switched gradients off
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        with checkpointed(model) if options.checkpoint_activations else nullcontext():
            return _train(learner, checkpointer, resume=resume, progress=shown)


def require_parts(images: int, options: TrainOptions, ranks: int) -> None:
    """Reject batches that the ranks cannot divide.

    Raises:
        ValueError: If ``batch_size`` is no multiple of the parts of all ranks, or the last batch of
            an epoch has fewer images than there are ranks.
    """
    size, parts = options.batch_size, options.accumulate
    if size % (parts * ranks):
        by = f"{ranks} ranks" + (f" times {parts} parts (accumulate)" if parts > 1 else "")
        step = parts * ranks
        fits = [each for each in (size // step * step, (size // step + 1) * step) if each]
        raise ValueError(
            f"train: batch_size {size} does not divide by {by}; take train.batch_size "
            f"{' or '.join(map(str, fits))}, or another number of ranks."
        )
    last = (
        [len(part) for part in torch.arange(images % size, device="cpu").chunk(parts)]
        if images % size
        else []
    )
    if any(part < ranks for part in last):
        raise ValueError(
            f"train: the last batch of an epoch has {images % size} of {images} images, too few "
            f"for {ranks} ranks; take another train.batch_size or number of ranks."
        )


def _train(
    learner: Learner,
    checkpointer: Checkpointer,
    *,
    resume: bool,
    progress: ProgressCallback | None,
) -> TrainResult:
    """Train in a folder that rank 0 has locked."""
    world, writes = learner.engine.world, learner.engine.world.is_first
    model, data, options = learner.model, learner.data, learner.options
    steps = math.ceil(len(data.train) / options.batch_size)  # per epoch
    total = options.epochs * steps
    state = checkpointer.restore_all(learner, steps) if resume else TrainState()
    learner.engine.log_from_start(state.history)
    by_loss = options.patience is not None
    try:
        with termination_deferred() as termination:
            while state.epoch < options.epochs and not state.stopped(options.patience):
                before, started, saved = state.seconds, time.monotonic(), time.monotonic()
                shuffle = stream(options.seed, "shuffle", state.epoch)
                order = torch.randperm(len(data.train), generator=shuffle, device="cpu")
                while state.batch < steps:
                    done = state.epoch * steps + state.batch
                    start = state.batch * options.batch_size
                    stop = start + options.batch_size
                    learner.read_ahead(order[stop : stop + options.batch_size], state)
                    learner.step(order[start:stop], state, progress=done / total)
                    state.batch += 1
                    state.seconds = before + time.monotonic() - started
                    if progress is not None:
                        progress(done + 1, total, state.text(options.epochs))
                    stopping = world.any(termination.requested)
                    due = time.monotonic() - saved >= options.checkpoint_seconds
                    if stopping or (writes and due and state.batch < steps):
                        learner.require_finite_weights(state)
                        if writes:
                            checkpointer.save("last", learner, state)
                        saved = time.monotonic()
                    if stopping:
                        termination.deliver()

                learner.require_finite_weights(state)
                world.require_equal(_weights(learner))
                with learner.averaged():
                    val_loss, val_accuracy = learner.validate(state)
                state.seconds = before + time.monotonic() - started
                state = state.next_epoch(options.epochs, learner.lr, val_loss, val_accuracy)
                if writes:
                    _save_epoch(learner, checkpointer, state, by_loss)
                if progress is not None:
                    progress(state.epoch * steps, total, state.text(options.epochs, by_loss))
                if world.any(termination.requested):
                    termination.deliver()
    except TrainingDiverged as error:
        error.args = (
            f"{error}; {checkpointer.checkpoint_status()}. Try a smaller lr than {options.lr:g}.",
        )
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = options.batch_size
        raise OutOfMemory(
            f"train: out of memory with batch_size {size}; {checkpointer.checkpoint_status()}. "
            f"Free some memory and resume, or train in a new folder with batch_size "
            f"{max(1, size // 2)} (in a recipe train.batch_size): that is another training."
        ) from error

    with world.together():
        if writes:
            _write_result(learner, checkpointer, state)
    if world.size > 1:
        model.load_state_dict(world.of_first(model.state_dict()))
    best = state.best(by_loss)
    return TrainResult(
        checkpointer.path, model.eval(), best["epoch"], best["val_accuracy"], state.history
    )


def _weights(learner: Learner) -> dict[str, str]:
    """Return the digest of the weights, which must be equal on all ranks after each step."""
    alone = learner.engine.world.size == 1
    return {} if alone else {"weights after an epoch": weights_digest(learner.model.state_dict())}


def _save_epoch(
    learner: Learner, checkpointer: Checkpointer, state: TrainState, by_loss: bool
) -> None:
    """Save the state after an epoch, and its metrics."""
    if learner.data.val is not None and state.best(by_loss)["epoch"] == state.epoch:
        checkpointer.save("best", learner, state)
    # "last" is saved after "best", so that the best epoch it names is on disk.
    checkpointer.save("last", learner, state)
    checkpointer.write_metrics(state)
    learner.engine.log(state.history[-1])


def _write_result(learner: Learner, checkpointer: Checkpointer, state: TrainState) -> None:
    """Load the weights of the best epoch, and write the result of the run."""
    model, data = learner.model, learner.data
    checkpoint.load_model(checkpointer.path / (LAST if data.val is None else BEST), model)
    best = state.best(learner.options.patience is not None)
    result = {
        "best_epoch": best["epoch"],
        "val_accuracy": best["val_accuracy"],
        "epochs": state.epoch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_samples": len(data.train),
        "val_samples": 0 if data.val is None else len(data.val),
        "seconds": sum(line["seconds"] for line in state.history),
        "objective": repr(learner.objective),
        FILES: {METRICS: file_digest(checkpointer.path / METRICS)},
    }
    write_json(checkpointer.path / RESULT, sealed(result))
