"""The time of one gradient of a model, for estimates before long work."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import Backprop
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import evaluating, frozen
from spikeguard.rng import SampleStreams, randomness

__all__ = ["gradient_seconds"]


def gradient_seconds(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the seconds that one gradient of one batch takes, the fastest of four.

    Args:
        model: The classifier; left unchanged.
        x: Images [B, ...].
        y: Labels [B].

    Raises:
        AttackError: If the model cannot be attacked.
    """
    weight = next(iter(model.parameters()), x)
    x, y = x.to(weight.device), y.to(weight.device)
    took, streams = math.inf, SampleStreams(0, torch.arange(len(x)))
    with evaluating(model), frozen(model), randomness(model, streams):
        for _ in range(4):  # early passes are slower
            began = time.monotonic()
            Backprop()(model, x, y, cross_entropy)
            took = min(took, time.monotonic() - began)
    return took
