"""One optimiser step and one validation pass; values that are not finite are rejected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError, NoGradientError
from spikeguard.data.images import Splits
from spikeguard.defences.objective import Objective
from spikeguard.defences.piece import Outcome
from spikeguard.rng import SampleStreams, key, randomness, stream
from spikeguard.training.averaging import WeightAverage
from spikeguard.training.divergence import TrainingDiverged, all_finite, bad_term, diagnose
from spikeguard.training.engine import Engine
from spikeguard.training.options import TrainOptions
from spikeguard.training.state import TrainState

__all__ = ["Learner"]


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
        average: Average of the weights, updated by each step; None without one.
    """

    model: nn.Module
    data: Splits
    objective: Objective
    options: TrainOptions
    engine: Engine
    optimizer: torch.optim.Optimizer
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
        average = options.build_average(model)
        return cls(model, data, objective, options, engine, optimizer, average)

    @property
    def lr(self) -> float:
        """Learning rate of the latest step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, index: Tensor, state: TrainState, progress: float) -> None:
        """Take one optimiser step.

        Args:
            index: Indices of the training images [B].
            state: Training state; it names the random streams, and the losses are added to it.
            progress: Finished share of the training, in [0, 1].

        Raises:
            TrainingDiverged: If a loss, a gradient or a weight is not finite; the weights are not
                updated.
        """
        seed, device, name = self.options.seed, self.engine.device, (state.epoch, state.batch)
        x, y = self.data.train.batch(index)
        if self.data.augment is not None:
            x = self.data.augment(x, stream(seed, "augment", *name))
        x, y = x.to(device), y.to(device)
        generator = stream(seed, "objective", *name)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate(progress)
        self.model.train()
        self.optimizer.zero_grad()
        with randomness(self.model, stream(seed, "noise", *name, device=device)):
            parts = self.options.accumulate
            for x_part, y_part in zip(x.chunk(parts), y.chunk(parts), strict=True):
                outcome = self._outcome(x_part, y_part, state, progress, generator)
                self.engine.backward(outcome.total * (len(y_part) / len(y)))
                if self.options.measure_idle:
                    self._measure_idle(x_part, y_part, outcome, state, progress)
            self.engine.unscale(self.optimizer)
            self._require_finite_update(x, state)
        self.engine.step(self.optimizer)
        self.objective.constrain(self.model, progress, stream(seed, "constrain", *name))
        if self.average is not None:
            self.average.update(self.model, progress)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the averaged weights, if there is an average."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def validate(self, state: TrainState) -> tuple[float | None, float | None]:
        """Return classification loss and accuracy on the clean validation images.

        The loss is the objective's: the cross-entropy or the ``fit`` of a piece. Both numbers are
        None without validation images. The model is in evaluation mode. Neuron noise is on; each
        image gets the same draws in every epoch.

        Raises:
            TrainingDiverged: If the loss is not finite.
        """
        data, device = self.data.val, self.engine.device
        if data is None:
            return None, None
        self.model.eval()
        streams = SampleStreams(key(self.options.seed, "validation"), torch.arange(len(data)))
        _, fit = self.objective.fit
        loss, correct = 0.0, 0
        for start in range(0, len(data), self.options.batch_size):
            index = torch.arange(start, min(start + self.options.batch_size, len(data)))
            x, y = (part.to(device) for part in data.batch(index))
            bound = randomness(self.model, streams.take(index))
            with torch.no_grad(), bound, self.engine.autocast():
                logits = self.model(x).float()
            loss += fit(logits, y).item() * len(y)
            correct += int((logits.argmax(1) == y).sum())
            if not math.isfinite(loss):
                raise self._diverged(x, state, f"the validation loss is {loss}")
        return loss / len(data), correct / len(data)

    def require_finite_weights(self, state: TrainState) -> None:
        """Reject weights and statistics that are not finite; called before validating or saving."""
        if not all_finite([*self.model.parameters(), *self.model.buffers()]):
            x, _ = self.data.train.batch(slice(self.options.batch_size))
            why = "a weight or a statistic is not finite"
            raise self._diverged(x.to(self.engine.device), state, why)

    def _outcome(
        self, x: Tensor, y: Tensor, state: TrainState, progress: float, generator: torch.Generator
    ) -> Outcome:
        """Run the objective on images and count its losses; reject losses that are not finite."""
        try:
            with self.engine.autocast():
                outcome = self.objective(
                    self.model,
                    x,
                    y,
                    progress=progress,
                    generator=generator,
                    epochs_done=state.epoch / self.options.epochs,
                )
        except NoGradientError:  # an error in the model, not a diverged value
            raise
        except AttackError as error:
            why = f"the attack on the training images failed ({error})"
            raise self._diverged(x, state, why) from error
        losses = {name: loss.item() for name, loss in outcome.losses.items()}
        term = bad_term(losses)
        if term is not None:
            why = f"loss term {term!r} is {losses[term]}"
            raise self._diverged(outcome.seen.x, state, why, term)
        state.count(losses, int((outcome.seen.logits.argmax(1) == y).sum()), len(y))
        state.measure(_numbers(outcome.unweighted), len(y))
        return outcome

    def _measure_idle(
        self, x: Tensor, y: Tensor, outcome: Outcome, state: TrainState, progress: float
    ) -> None:
        """Log the terms of weight 0, with random streams of their own."""
        seed, name = self.options.seed, (state.epoch, state.batch)
        noise = stream(seed, "measure", "noise", *name, device=self.engine.device)
        with randomness(self.model, noise), self.engine.autocast():
            found = self.objective.measure_idle(
                self.model,
                x,
                y,
                x_perturbed=outcome.seen.x if self.objective.perturbs else None,
                progress=progress,
                generator=stream(seed, "measure", *name),
            )
        state.measure(_numbers(found), len(y))

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
