"""The images of an analysis under attack, and the potentials of both under the same noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spikeguard.analysis.base import Batch, NotApplicable
from spikeguard.attacks.base import Attack
from spikeguard.attacks.model_access import evaluating
from spikeguard.models.adapters.foreign_neuron import ForeignError
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.neurons.modes import record
from spikeguard.neurons.trace import LayerTrace
from spikeguard.rng import randomness

__all__ = ["attacked", "recorded", "traces"]


def attacked(model: nn.Module, batch: Batch, attack: Attack, seed: int) -> Tensor:
    """Return the adversarial inputs of a batch; the same in every analysis of one seed.

    Args:
        model: The network; left unchanged.
        batch: Clean images.
        attack: The attack; its threat set is respected by the attack itself.
        seed: Seed of the attack's random numbers, one stream an image.

    Returns:
        Inputs [B, C, H, W] in [0, 1].
    """
    with evaluating(model):
        found = attack(model, batch.x, batch.y, generator=batch.streams(seed, "attack"))
    return found.detach()


@contextmanager
def recorded(model: nn.Module, batch: Batch, seed: int) -> Iterator[None]:
    """Evaluation mode without gradients, with the noise that the images of a batch always get."""
    with (
        evaluating(model),
        torch.no_grad(),
        randomness(model, batch.streams(seed, "noise")),
    ):
        yield


def traces(
    model: nn.Module, batch: Batch, x: Tensor, seed: int
) -> tuple[Tensor, dict[str, LayerTrace]]:
    """Return the logits [B, K] of inputs, and currents, potentials and spikes of every layer.

    Two calls with the same batch and seed draw the same noise, so that clean and attacked inputs
    differ by the attack alone.

    Raises:
        NotApplicable: If the network has no spiking layer, or one that cannot be recorded.
    """
    try:
        with record(model) as seen, recorded(model, batch, seed):
            logits = model(in_dtype_of(model, x))
    except ForeignError as error:
        raise NotApplicable(str(error)) from error
    layers = dict(seen.items())
    if not layers:
        raise NotApplicable(
            f"{type(model).__name__} has no spiking layer; analyses of potentials need one."
        )
    return logits, layers
