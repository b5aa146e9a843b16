"""One optimiser step and one validation pass; values that are not finite are rejected.

Several ranks share every batch: each takes a contiguous part of it, draws the random numbers that
one process would draw for that part, and gets the gradients of the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError, NoGradientError
from spikeguard.data.images import Splits
from spikeguard.defences.objective import Objective
from spikeguard.defences.piece import Outcome
from spikeguard.kernels.batch_statistics import shared_statistics
from spikeguard.rng import SampleStreams, key, part_of_batch, randomness, stream, torch_seeded
from spikeguard.training.averaging import WeightAverage
from spikeguard.training.divergence import TrainingDiverged, all_finite, bad_term, diagnose
from spikeguard.training.engine import Engine
from spikeguard.training.options import TrainOptions
from spikeguard.training.state import TrainState

__all__ = ["Learner"]

_Sharing = Callable[[], AbstractContextManager[None]]


class _Loss(nn.Module):
    """The objective on some images as a module, whose gradients the engine averages over ranks.

    Args:
        model: The model, called as it is.
        objective: The objective.
    """

    def __init__(self, model: nn.Module, objective: Objective):
        super().__init__()
        self.model, self.objective = model, objective
        self.outcome: Outcome | None = None  # of the latest call

    def forward(self, x: Tensor, y: Tensor, weight: float, options: Mapping[str, Any]) -> Tensor:
        """Return the total loss times a weight."""
        self.outcome = None  # frees the one before
        self.outcome = self.objective(self.model, x, y, **options)
        return self.outcome.total * weight


@dataclass(frozen=True)
class Learner:
    """Model, data, objective and optimiser of a run.

    Stateless: the training state is passed to each call.

    Args:
        model: The model, on the engine's device.
        data: Training and validation images.
        objective: The objective that a step minimises.
        options: Options of the run.
        engine: Device and precision.
        optimizer: Optimiser over the model's parameters.
        loss: The objective as a module.
        reduced: The same, with gradients averaged over ranks.
        average: Average of the weights, updated by each step; None without one.
    """

    model: nn.Module
    data: Splits
    objective: Objective
    options: TrainOptions
    engine: Engine
    optimizer: torch.optim.Optimizer
    loss: _Loss
    reduced: nn.Module
    average: WeightAverage | None = None

    @classmethod
    def create(
        cls,
        model: nn.Module,
        data: Splits,
        objective: Objective,
        options: TrainOptions,
        engine: Engine,
    ) -> Self:
        """Move the model to the engine's device and build its optimiser."""
        engine.setup(model)
        optimizer = options.build_optimizer(model)
        loss = _Loss(model, objective)
        reduced, average = engine.reduced(loss), options.build_average(model)
        return cls(model, data, objective, options, engine, optimizer, loss, reduced, average)

    @property
    def lr(self) -> float:
        """Learning rate of the latest step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, index: Tensor, state: TrainState, progress: float) -> None:
        """Take one optimiser step.

        Args:
            index: Indices of the training images [B], of all ranks together.
            state: Training state; it names the random streams, and the losses are added to it.
            progress: Finished share of the training, in [0, 1].

        Raises:
            TrainingDiverged: If a loss, a gradient or a weight is not finite; the weights are not
                updated.
        """
        seed, device, name = self.options.seed, self.engine.device, (state.epoch, state.batch)
        world = self.engine.world
        parts = torch.arange(len(index), device="cpu").chunk(self.options.accumulate)
        own = self._own(index)
        x, y = self._images(index, torch.cat(own), name)
        x, y = x.to(device), y.to(device)
        generator = stream(seed, "objective", *name)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate(progress)
        self.model.train()
        self.optimizer.zero_grad()
        sizes = [len(places) for places in own]
        with (
            randomness(self.model, stream(seed, "noise", *name, device=device)),
            torch_seeded(seed, "torch", *name, world.rank, device=device),  # nn.Dropout
        ):
            for number, (x_part, y_part) in enumerate(
                zip(torch.split(x, sizes), torch.split(y, sizes), strict=True)
            ):
                part, weight = parts[number], world.size * len(y_part) / len(index)
                sharing = partial(self._sharing, own[number] - part[0], len(part))
                with self.engine.unreduced(self.reduced, number < len(parts) - 1):
                    loss = self._loss(x_part, y_part, weight, sharing, state, progress, generator)
                    with sharing():
                        self.engine.backward(loss)
                if self.options.measure_idle:
                    self._measure_idle(x_part, y_part, sharing, state, progress)
            self.loss.outcome = None
            self.engine.unscale(self.optimizer)
            self._require_finite_update(x, state)
        self.engine.step(self.optimizer)
        self.objective.constrain(self.model, progress, stream(seed, "constrain", *name))
        if not self.options.sync_batchnorm:
            self._average_buffers()
        if self.average is not None:
            self.average.update(self.model, progress)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the averaged weights, if there is an average."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def read_ahead(self, index: Tensor, state: TrainState) -> None:
        """Announce the images [B] of the next step, so that files are read meanwhile."""
        if len(index):
            index = self._read(index, torch.cat(self._own(index)))
        self.data.train.read_ahead(index, seed=self.options.seed, epoch=state.epoch)

    def validate(self, state: TrainState) -> tuple[float | None, float | None]:
        """Return classification loss and accuracy on the clean validation images.

        The loss is the objective's: the cross-entropy or the ``fit`` of a piece. Both numbers are
        None without validation images. The model is in evaluation mode. Neuron noise is on; each
        image gets the same draws in every epoch. Each rank takes a part of every batch.

        Raises:
            TrainingDiverged: If the loss is not finite.
        """
        data, device = self.data.val, self.engine.device
        if data is None:
            return None, None
        self.model.eval()
        streams = SampleStreams(
            key(self.options.seed, "validation"), torch.arange(len(data), device="cpu")
        )
        _, fit = self.objective.fit
        loss, correct = 0.0, 0
        for start in range(0, len(data), self.options.batch_size):
            batch = torch.arange(
                start, min(start + self.options.batch_size, len(data)), device="cpu"
            )
            index = self.engine.world.share(batch)
            if not len(index):  # fewer images than ranks
                continue
            x, y = (part.to(device) for part in data.batch(index))
            bound = randomness(self.model, streams.take(index))
            with torch.no_grad(), bound, self.engine.autocast():
                logits = self.model(x).float()
            loss += fit(logits, y).item() * len(y)
            correct += int((logits.argmax(1) == y).sum())
            if not math.isfinite(loss):
                raise self._diverged(x, state, f"the validation loss is {loss}")
        loss, found = self.engine.world.sum([loss, correct])
        return loss / len(data), found / len(data)

    def require_finite_weights(self, state: TrainState) -> None:
        """Reject weights and statistics that are not finite; called before validating or saving."""
        if not all_finite([*self.model.parameters(), *self.model.buffers()]):
            x, _ = self.data.train.batch(slice(self.options.batch_size))
            why = "a weight or a statistic is not finite"
            raise self._diverged(x.to(self.engine.device), state, why)

    def _images(
        self, index: Tensor, places: Tensor, name: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return this rank's augmented images and labels of a batch.

        Args:
            index: Indices of the images of the batch [B].
            places: Places of this rank's images in the batch.
            name: Epoch and step.
        """
        augment, seed = self.data.augment, self.options.seed
        x, y = self.data.train.training_batch(self._read(index, places), seed=seed, epoch=name[0])
        if augment is None:
            return x, y
        generator = stream(seed, "augment", *name)
        if len(x) < len(index):
            with part_of_batch(places, len(index)):
                return augment(x, generator), y
        x = augment(x, generator)
        return (x, y) if self.engine.world.size == 1 else (x[places], y[places])

    def _read(self, index: Tensor, places: Tensor) -> Tensor:
        """Return which images of a batch are read: all where the augmentation needs them."""
        if self.engine.world.size == 1:
            return index
        whole = self.data.augment is not None and not getattr(self.data.augment, "by_row", False)
        return index if whole else index[places]

    def _own(self, index: Tensor) -> list[Tensor]:
        """Return the places of this rank's images in a batch, for each part of it."""
        parts = torch.arange(len(index), device="cpu").chunk(self.options.accumulate)
        return [self.engine.world.share(part) for part in parts]

    @contextmanager
    def _sharing(self, rows: Tensor, total: int) -> Iterator[None]:
        """Draw random numbers, and take batch statistics, as one process does for all ranks."""
        world = self.engine.world
        if world.size == 1:
            yield
            return
        total_of = world.sum_of if self.options.sync_batchnorm else None
        with part_of_batch(rows, total), shared_statistics(self.model, total_of):
            yield

    def _loss(
        self,
        x: Tensor,
        y: Tensor,
        weight: float,
        sharing: _Sharing,
        state: TrainState,
        progress: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Run the objective on images and count its losses; reject losses that are not finite."""
        options = {
            "progress": progress,
            "generator": generator,
            "epochs_done": state.epoch / self.options.epochs,
        }
        try:
            with sharing(), self.engine.autocast():
                loss: Tensor = self.reduced(x, y, weight, options)
        except NoGradientError:  # an error in the model, not a diverged value
            raise
        except AttackError as error:
            why = f"the attack on the training images failed ({error})"
            raise self._diverged(x, state, why) from error
        outcome = self.loss.outcome
        assert outcome is not None
        losses = {name: value.item() for name, value in outcome.losses.items()}
        term = bad_term(losses)
        if term is not None:
            why = f"loss term {term!r} is {losses[term]}"
            raise self._diverged(outcome.seen.x, state, why, term)
        correct = int((outcome.seen.logits.argmax(1) == y).sum())
        groups, count, samples = self._over_ranks(
            [losses, _numbers(outcome.unweighted)], correct, len(y)
        )
        state.count(groups[0], count, samples)
        state.measure(groups[1], samples)
        return loss

    def _over_ranks(
        self, groups: Sequence[Mapping[str, float]], correct: int, samples: int
    ) -> tuple[Sequence[Mapping[str, float]], int, int]:
        """Return means over this rank's images as means over those of all ranks; and the counts."""
        world = self.engine.world
        if world.size == 1:
            return groups, correct, samples
        sums = [value * samples for group in groups for value in group.values()]
        *sums, found, total = world.sum([*sums, correct, samples])
        means = iter(value / total for value in sums)
        return [{name: next(means) for name in group} for group in groups], int(found), int(total)

    @torch.no_grad()
    def _average_buffers(self) -> None:
        """Give all ranks the mean of each running statistic."""
        held = [each for each in self.model.buffers() if each.is_floating_point() and each.numel()]
        if self.engine.world.size == 1 or not held:
            return
        sums = self.engine.world.sum_of(torch.cat([each.double().flatten() for each in held]))
        means = torch.split(sums / self.engine.world.size, [each.numel() for each in held])
        for each, mean in zip(held, means, strict=True):
            each.copy_(mean.view_as(each))

    def _measure_idle(
        self, x: Tensor, y: Tensor, sharing: _Sharing, state: TrainState, progress: float
    ) -> None:
        """Log the terms of weight 0, with random streams of their own."""
        seed, name = self.options.seed, (state.epoch, state.batch)
        noise = stream(seed, "measure", "noise", *name, device=self.engine.device)
        outcome = self.loss.outcome
        assert outcome is not None
        apart = torch_seeded(seed, "measure", "torch", *name, device=self.engine.device)
        with apart, randomness(self.model, noise), sharing(), self.engine.autocast():
            found = self.objective.measure_idle(
                self.model,
                x,
                y,
                x_perturbed=outcome.seen.x if self.objective.perturbs else None,
                progress=progress,
                generator=stream(seed, "measure", *name),
            )
        (means,), _, samples = self._over_ranks([_numbers(found)], 0, len(y))
        state.measure(means, samples)

    def _require_finite_update(self, x: Tensor, state: TrainState) -> None:
        """Reject gradients and weights that are not finite; called before the weight update."""
        weights = list(self.model.parameters())
        if not all_finite(weights):
            raise self._diverged(x, state, "a weight is not finite")
        gradients = [w.grad for w in weights if w.grad is not None]
        if not all_finite(gradients) and not self.engine.overflow_is_normal:
            raise self._diverged(x, state, "a gradient is not finite")

    def _diverged(
        self, x: Tensor, state: TrainState, why: str, term: str | None = None
    ) -> TrainingDiverged:
        """Return the error that names the value that is not finite and the first layer affected."""
        with self.engine.autocast():
            return diagnose(
                self.model, x, why, epoch=state.epoch + 1, step=state.batch + 1, term=term
            )


def _numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Return scalar tensors as numbers, in one transfer from the device."""
    if not values:
        return {}
    listed = torch.stack([value.float() for value in values.values()]).tolist()
    return dict(zip(values, listed, strict=True))
