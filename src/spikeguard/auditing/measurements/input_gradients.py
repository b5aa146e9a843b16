"""Input gradients of all samples, and the share of zero surrogates by layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spikeguard.attacks.gradients.zero_gradients import largest_gradient
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.auditing.context import Context
from spikeguard.neurons.modes import record

__all__ = ["REPEATS", "dead_by_sample", "dead_surrogates", "input_gradients", "largest_gradients"]


REPEATS = 4  # of the draws under noise; a sample counts by the share of them without a gradient
_DEAD = 1e-6  # a surrogate derivative below this counts as zero


def dead_surrogates(context: Context) -> dict[str, float]:
    """Return, by spiking layer, the share of (neuron, step) whose surrogate is zero."""
    return {name: float(shares.mean()) for name, shares in dead_by_sample(context).items()}


def dead_by_sample(context: Context) -> dict[str, Tensor]:
    """Return, by spiking layer, that share for each sample [N]."""
    dead: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for index in context.batches():
            with context.searching(index) as (x, _), record(context.model) as trace:
                context.logits_of(x)
            for name, layer in trace.items():
                slope = layer.surrogate(layer.v - layer.v_th)
                per_sample = (slope.abs() < _DEAD).double().transpose(0, 1).flatten(1).mean(1)
                dead.setdefault(name, []).append(per_sample)
    return {name: torch.cat(parts) for name, parts in dead.items()}


def input_gradients(
    context: Context, loss: Loss = cross_entropy
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the indices of each batch and its input gradients, on the CPU."""
    for index in context.batches():
        with context.searching(index) as (x, y):
            _, grad = context.gradient()(context.model, x, y, loss)
        yield index, grad.cpu()


def largest_gradients(context: Context, loss: Loss = cross_entropy) -> Tensor:
    """Return the largest absolute input gradients over ``EOT`` draws [R, N, ...], on the CPU.

    R is ``REPEATS`` under noise, each with its own draws, else 1.
    """
    repeats, found = REPEATS if context.stochastic else 1, []
    for index in context.batches():
        with context.searching(index) as (x, y):
            each = [largest_gradient(context.model, x, y, loss).cpu() for _ in range(repeats)]
        found.append(torch.stack(each))
    return torch.cat(found, 1)
