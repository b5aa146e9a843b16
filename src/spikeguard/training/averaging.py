"""Average of the weights over the optimiser steps, which is evaluated instead of the last weights.

The exponential average follows training throughout; the uniform one begins late. Statistics of
batch normalisation are averaged like weights, not measured again with the averaged ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]

_RAW = ".raw/"  # names of the weights in training; no name of a parameter begins with a dot


class WeightAverage:
    r"""Average of the weights w_1, w_2, ... after each optimiser step.

    With ``ema`` it is exponential and begins with the initial weights,

    .. math:: a_n = d_n\,a_{n-1} + (1 - d_n)\,w_n, \quad
              d_n = \min\bigl(\mathrm{ema}, \tfrac{n}{n + 9}\bigr),

    where the smaller factor of the first steps makes it forget the initial weights. With ``swa`` it
    is the weights themselves at first, and from the step before which that share of all steps is
    finished, the mean of the weights since. Whole numbers, such as counters, are not averaged.

    Args:
        model: The model; the average begins with its weights.
        ema: Decay in (0, 1), or None.
        swa: Share in [0, 1) of the steps after which the mean begins, or None; exactly one of the
            two is given.

    Attributes:
        tensors: The average, named as in the state dict of the model.
        updates: Number of weights that were averaged.

    Source: Polyak and Juditsky, 1992, for ``ema`` in adversarial training Rebuffi et al., 2021
        (arXiv:2103.01946); Izmailov et al., 2018 (arXiv:1803.05407) for ``swa``, which averages
        once an epoch and measures the statistics again.
    """

    def __init__(self, model: nn.Module, *, ema: float | None = None, swa: float | None = None):
        assert (ema is None) != (swa is None)
        self.ema, self.swa = ema, swa
        self.updates = 0
        self.tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, progress: float) -> None:
        """Add the weights after an optimiser step.

        Args:
            model: The model after the step.
            progress: Share of all steps that was finished before this step, in [0, 1].
        """
        share = self._share(progress)
        for name, now in model.state_dict().items():
            mean = self.tensors[name]
            if share < 1 and mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights inside the block, and its own back after it."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        try:
            model.load_state_dict(self.tensors)
            yield
        finally:
            model.load_state_dict(own)

    def values(self) -> tuple[dict[str, Tensor], int]:
        """Return the average and its number of updates, for another rank."""
        return self.tensors, self.updates

    def set_values(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take over what :meth:`values` returned; tensors stay on their devices."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
        self.updates = updates

    def state(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return what a checkpoint of the averaged weights needs besides them to resume training.

        Returns:
            Copies of the weights in training, by names that no parameter has, and plain values.
        """
        own = {_RAW + name: t.detach().clone() for name, t in model.state_dict().items()}
        return own, {"updates": self.updates}

    def load_state(
        self, model: nn.Module, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Restore the average from a model that holds the averaged weights.

        Args:
            model: The model with the weights of the checkpoint.
            tensors: All further tensors of the checkpoint.
            values: The plain values that :meth:`state` returned.

        Returns:
            The weights in training, named as in the model, and the tensors that are not this
            average's.

        Raises:
            ValueError: If the number of updates is not a whole number >= 0.
        """
        updates = values["updates"]
        if type(updates) is not int or updates < 0:
            raise ValueError(f"average.updates cannot be {updates!r}")
        self.updates = updates
        self.tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}
        raw = {k.removeprefix(_RAW): t for k, t in tensors.items() if k.startswith(_RAW)}
        return raw, {k: t for k, t in tensors.items() if not k.startswith(_RAW)}

    def _share(self, progress: float) -> float:
        """Count the weights of a step and return their share of the new average."""
        if self.swa is not None:
            if progress < self.swa:
                return 1.0
            self.updates += 1
            return 1 / self.updates
        assert self.ema is not None
        self.updates += 1
        return 1 - min(self.ema, self.updates / (self.updates + 9))
