"""Spikes and synaptic operations of an image, measured beside an evaluation in one cheap pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import nn

from spikeguard.attacks.model_access import evaluating
from spikeguard.data.images import ImageSet
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.models.spike_counts import count_spikes, joined_spikes
from spikeguard.models.synaptic_operations import count_operations, joined_operations
from spikeguard.neurons.modes import spiking_layers
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.system.intervals import mean_interval
from spikeguard.system.out_of_memory import is_out_of_memory

__all__ = ["IMAGES", "ActivityCost", "Mean", "activity_cost"]

IMAGES = 64  # clean images that are measured, the first ones


@dataclass(frozen=True)
class Mean:
    """A mean over images with its 95 % interval; without ends for a single image."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: torch.Tensor) -> Self:
        """Return the mean of one number for each image, [N]."""
        middle, low, high = mean_interval(values.double().tolist())
        return cls(middle, None if math.isnan(low) else low, None if math.isnan(high) else high)


@dataclass(frozen=True)
class ActivityCost:
    """Activity of a network on its first clean test images, in counts an image.

    Attributes:
        images: Number of images.
        spikes: Spikes of all layers and steps.
        effective_acs: Accumulate operations: inputs are spikes, inputs and weights are not 0.
        effective_macs: Multiply-accumulate operations: inputs are graded. Layers before the first
            neuron count once where all steps are equal.
        dense: Operations on all inputs and weights.
    """

    images: int
    spikes: Mean
    effective_acs: Mean
    effective_macs: Mean
    dense: float

    @property
    def operations(self) -> float:
        """Accumulate and multiply-accumulate operations of an image together."""
        return self.effective_acs.mean + self.effective_macs.mean

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, card: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_dict` wrote.

        Raises:
            ValueError: If a count is negative or not finite.
        """
        means = {
            name: Mean(*(_number(card[name][end]) for end in ("mean", "low", "high")))
            for name in ("spikes", "effective_acs", "effective_macs")
        }
        found = cls(int(card["images"]), **means, dense=float(card["dense"]))
        counts = [found.images - 1, found.dense, *(each.mean for each in means.values())]
        if not all(0 <= count < math.inf for count in counts):
            raise ValueError(f"activity: counts must be finite and >= 0, got {dict(card)}")
        return found


def activity_cost(
    model: nn.Module, images: ImageSet, *, n: int, seed: int, batch_size: int
) -> ActivityCost | None:
    """Measure the first clean images of an evaluation; None where a network cannot be counted.

    That is a network without spiking layers, or a foreign one that fails in another batch size or
    divides its inputs so that spikes and operations cannot be assigned to images.

    Args:
        model: The network; left unchanged.
        images: Test images.
        n: Images of the evaluation; at most ``IMAGES`` are measured.
        seed: Names the random streams of the noise.
        batch_size: Images at once; fewer where memory runs out.
    """
    while spiking_layers(model) and batch_size > 0:
        try:
            return _measured(model, images, min(n, IMAGES), seed, batch_size)
        except (RuntimeError, ValueError, MemoryError) as error:
            if not is_out_of_memory(error):
                return None
        batch_size //= 2
    return None


def _measured(
    model: nn.Module, images: ImageSet, n: int, seed: int, batch_size: int
) -> ActivityCost:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    seen, done = [], []
    with count_spikes(model) as spikes, count_operations(model) as operations:
        for start in range(0, n, batch_size):
            index = torch.arange(start, min(start + batch_size, n))
            x = in_dtype_of(model, images.batch(index)[0].to(device))
            noise = randomness(model, SampleStreams(key(seed, "activity"), index))
            exact = torch.autocast(device.type, enabled=False)
            with evaluating(model), torch.no_grad(), exact, noise:
                model(x)
            seen.append(dict(spikes))
            done.append(dict(operations))
    fired = torch.stack([each.spikes.sum(0) for each in joined_spikes(seen).values()]).sum(0)
    layers = joined_operations(done).values()
    none = torch.zeros(n, dtype=torch.int64, device=fired.device)
    ac = sum((layer.effective for layer in layers if not layer.graded), none)
    mac = sum((layer.effective for layer in layers if layer.graded), none)
    dense = float(sum(layer.dense for layer in layers))
    return ActivityCost(n, Mean.of(fired), Mean.of(ac), Mean.of(mac), dense)


def _number(value: Any) -> Any:
    return None if value is None else float(value)
