"""Stepwise: the protocol of a search that runs step by step, and which attacks follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.base import BACKPROP, is_adaptive
from spikeguard.attacks.losses import Loss, margin
from spikeguard.attacks.model_access import draws_under_attack
from spikeguard.rng import SampleStreams

__all__ = ["Following", "State", "Step", "Stepwise", "Watch", "can_step"]

State = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """The result of one step of a search; the sample axis comes first everywhere.

    Attributes:
        state: State of the search after the step.
        seen: The points whose logits the step computed, shaped like the inputs.
        fooled: Whether the model misclassified them [B].
        result: The points to return if the search ends here, shaped like the inputs.
        over: Whether the search ends here [B].
        margin: How clearly the model was right at ``seen``: the logit of the true class minus the
            largest other one [B]; None where the search does not look.
    """

    state: State
    seen: Tensor
    fooled: Tensor
    result: Tensor
    over: Tensor
    margin: Tensor | None = None


class Stepwise(Attack, Protocol):
    """An attack that can also be run step by step, with samples at different steps in one batch.

    Its whole state is in tensors whose first axis is the samples, so that rows can be removed and
    added. No row may depend on another. A search that draws random numbers in every step keeps one
    number per sample, ``name = streams.bits([B], dim=0)``, and draws from
    ``SampleStreams(0, name + step)``, so that samples may be at different steps.
    """

    @property
    def rounds(self) -> int:
        """Largest number of searches per sample, >= 1; the next one runs if none has succeeded."""

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state of the search of a round, counted from 0.

        In every round ``streams`` are at the position in which the attack's call receives them.
        """

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample."""


@runtime_checkable
class Movable(Protocol):
    """An adaptive gradient whose state is per sample, so that it can follow a changing batch."""

    def follows_rows(self, model: nn.Module) -> bool:
        """Whether the state of every layer of this model is per sample."""


@runtime_checkable
class Following(Protocol):
    """The state of such a gradient in one search, from its ``begin``."""

    def rearrange(self, rows: Tensor) -> None:
        """Move to the rows of a new batch: the former row of each sample, or -1 [B]."""


class Watch:
    """A loss that records which samples its logits misclassify, and by how much.

    The forward pass of a gradient thus also shows whether its point fools the model.
    """

    def __init__(self, loss: Loss):
        self.loss = loss
        self.logits: Tensor | None = None
        self.losses: Tensor | None = None

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the losses [B]."""
        self.logits = logits.detach()
        losses = self.loss(logits, y)
        self.losses = losses.detach()
        return losses

    def gave(self, losses: Tensor) -> bool:
        """Whether losses [B] of a gradient are those of the logits that were recorded."""
        return self.losses is not None and torch.equal(self.losses, losses)

    def outcome(self, y: Tensor) -> Tensor:
        """Return which samples were misclassified [B]; none if the loss was never called."""
        if self.logits is None:
            return torch.zeros_like(y, dtype=torch.bool)
        return self.logits.argmax(1) != y

    def margin(self, y: Tensor) -> Tensor:
        """Return by how much each true class led [B]; infinite if the loss was never called."""
        if self.logits is None:
            return torch.full_like(y, torch.inf, dtype=torch.float32)
        return -margin(self.logits, y)


def can_step(attack: Attack, model: nn.Module) -> TypeGuard[Stepwise]:
    """Whether an attack can be run step by step against a model, with the same result.

    This is false for a model that draws noise inside an attack, because one draw does not decide
    whether it is fooled; for a subclass that overrides the attack's call; and for a gradient that
    keeps state from step to step, unless the state is per sample: its ``follows_rows(model)`` is
    true, and what its ``begin()`` returns has a method ``rearrange``.
    """
    gradient = getattr(attack, "gradient", BACKPROP)
    follows = isinstance(gradient, Movable) and gradient.follows_rows(model)
    if is_adaptive(gradient) and not follows:
        return False
    owner = next((kind for kind in type(attack).__mro__ if "__call__" in vars(kind)), object)
    return not draws_under_attack(model) and {"begin", "step"} <= vars(owner).keys()
