"""One training step on a copy of the model, to measure what a step takes before training starts."""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext

import torch
from torch import nn

from spikeguard.data.images import Splits
from spikeguard.defences.objective import Objective
from spikeguard.models.activation_checkpointing import checkpointed
from spikeguard.rng import randomness, stream
from spikeguard.training.options import TrainOptions

__all__ = ["TrialStep"]

_TYPES = {"bf16": torch.bfloat16, "16": torch.float16}


class TrialStep:
    """A step of an objective on the first training images; model and data stay as they are.

    Args:
        model: The model to train; it is copied to the device.
        data: Its images.
        objective: The objective of the training.
        options: Its options; of ``precision`` "16" without the scaling of gradients.
        device: The first CUDA device if there is one, else the CPU, when left out.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Splits,
        objective: Objective,
        options: TrainOptions,
        device: torch.device | None = None,
    ):
        found = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(found) if device is None else device
        self._model = copy.deepcopy(model).to(self.device).train()
        self._optimizer = options.build_optimizer(self._model)
        self._average = options.build_average(self._model)  # takes memory, and no part in a step
        self._data, self._objective, self._options = data, objective, options

    def __call__(self, images: int) -> None:
        """Take a step on so many images, as one part of a batch; it changes the copy only.

        Raises:
            AttackError: If the attack of the objective fails on them.
        """
        options = self._options
        x, y = self._data.train.training_batch(slice(images), seed=options.seed, epoch=0)
        x, y = x.to(self.device), y.to(self.device)
        if options.accumulate == 1:  # otherwise the gradients of earlier parts are there
            self._optimizer.zero_grad()
        kind = _TYPES.get(options.precision)
        cast = nullcontext() if kind is None else torch.autocast(self.device.type, kind)
        kept = checkpointed(self._model) if options.checkpoint_activations else nullcontext()
        noise = stream(options.seed, "trial", "noise", device=self.device)
        with kept, randomness(self._model, noise):
            with cast:
                outcome = self._objective(
                    self._model,
                    x,
                    y,
                    progress=0.5,
                    generator=stream(options.seed, "trial"),
                )
            outcome.total.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def seconds(self, images: int) -> float:
        """Return the time of a step on so many images, the faster of two after a first one."""
        took = []
        for _ in range(3):
            began = time.monotonic()
            self(images)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            took.append(time.monotonic() - began)
        return min(took[1:])
