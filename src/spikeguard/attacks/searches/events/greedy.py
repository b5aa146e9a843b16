"""EventGreedy: one change after another, each the best by the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.event_threats.base import largest
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost
from spikeguard.attacks.losses import Loss, margin
from spikeguard.attacks.model_access import crafting
from spikeguard.attacks.searches.events.search_batch import (
    allowed,
    changes,
    require_norm,
    require_positive,
    run_search,
)
from spikeguard.attacks.searches.stepwise import State, Step, Watch
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["EventGreedy"]


@dataclass(frozen=True)
class EventGreedy:
    r"""Greedy insertion and deletion of events: the baseline of the searches on events.

    In every step the gradient is taken at the current point, and the ``per_step`` allowed changes
    with the largest products of gradient and change are made. Changes are never taken back. The
    search ends when the model is fooled, the budget is spent, or no change helps.

    On a linear model the result is the optimum of flips and of counts.

    Args:
        threat: Flips, edits or counts.
        per_step: Changes in one step, >= 1.
        loss: Per-sample loss to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If per_step is below 1, or the threat set is of another kind.

    Source: SpikeGuard's own; the baseline of event attacks.
    """

    norms: ClassVar[tuple[str, ...]] = ("flips", "edits", "counts")
    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum"})

    threat: Threat
    per_step: int = 1
    loss: Loss = margin
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        require_norm(self)
        require_positive(self, "per_step")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample, where each step makes ``per_step`` changes."""
        return self._steps * gradient_cost(self.gradient)

    @property
    def rounds(self) -> int:
        """One search per sample."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state, at x."""
        return {"x_adv": x}

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Make the best changes of every sample; ``seen`` is the point before the step."""
        watch, here = Watch(self.loss), state["x_adv"]
        _, grad = self.gradient(model, here, y, watch)
        change, gain = changes(self.threat, here, x, grad)
        left = allowed(self.threat, self.per_step, here, x)
        chosen = largest(gain.flatten(1), left).view_as(x)
        there = torch.where(chosen, here + change, here)
        stuck = ~chosen.flatten(1).any(1)
        over = stuck | (allowed(self.threat, 1, there, x) < 1)
        return Step({"x_adv": there}, here, watch.outcome(y), there, over, watch.margin(y))

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            return run_search(self, model, x.detach(), y, streams)

    @property
    def _steps(self) -> int:
        return max(1, math.ceil(self.threat.eps / self.per_step))
