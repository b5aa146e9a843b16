"""SpikeRetiming: the events stay, and their times are searched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.event_threats.retiming import Retiming
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.attacks.model_access import crafting
from spikeguard.attacks.searches.events.search_batch import (
    require_norm,
    require_positive,
    run_search,
)
from spikeguard.attacks.searches.restarts import best_round, rows
from spikeguard.attacks.searches.stepwise import State, Step, Watch
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["SpikeRetiming"]

_START, _RESTART = 0.1, 1.0  # spread of the random logits, of the first search and the others


@dataclass(frozen=True)
class SpikeRetiming:
    r"""Spike-retiming attack: a distribution over the shifts of every event.

    Every event has a logit for each shift d of up to ``max_shift`` bins, and p = softmax(logits).
    The soft grid :math:`\tilde x[t] = \sum_d p_{t-d}(d)\,x[t-d]` is projected to the nearest grid
    of the threat set. The gradient is taken at that grid and passed on to the soft one (straight
    through), with the penalty ``capacity`` times the sum of
    :math:`\max(\tilde x[t] - c, 0)^2`, c the events of the fullest bin. The logits take steps along
    the sign of their gradient.

    Args:
        threat: Retiming.
        steps: Gradient steps, >= 1.
        step_size: Length of a step of the logits, > 0.
        capacity: Weight of the penalty of crowded bins, >= 0.
        restarts: Searches, >= 1; the next one, from logits that differ more, is of the samples that
            are not fooled yet.
        loss: Per-sample loss to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If a setting is out of range, or the threat set is of another kind.

    Source: "Spike-retiming attacks", ICLR 2026 (arXiv:2602.03284).
    """

    norms: ClassVar[tuple[str, ...]] = ("retiming",)
    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum"})

    threat: Threat
    steps: int = 20
    step_size: float = 0.5
    capacity: float = 1.0
    restarts: int = 1
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        require_norm(self)
        require_positive(self, "steps", "restarts")
        if not 0 < self.step_size < math.inf:
            raise ValueError(f"SpikeRetiming: step_size must be positive, got {self.step_size:g}.")
        if not 0 <= self.capacity < math.inf:
            raise ValueError(f"SpikeRetiming: capacity is a weight >= 0, got {self.capacity:g}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        compared = FORWARD * self.restarts if self.restarts > 1 else 0
        return self.restarts * self.steps * gradient_cost(self.gradient) + compared

    @property
    def rounds(self) -> int:
        """Largest number of searches per sample."""
        return self.restarts

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state: nearly equal logits, at x."""
        shifts = 2 * self._reach(x) + 1
        named = streams.fork("round", round_)
        logits = named.normal((len(x), shifts, *x.shape[1:]), device=x.device)
        logits *= _RESTART if round_ else _START
        return {"x_adv": x, "logits": logits.to(x.dtype), "done": torch.zeros_like(y)}

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with the logits of every sample; ``seen`` is the grid before it."""
        watch, here, done = Watch(self.loss), state["x_adv"], state["done"] + 1
        _, grad = self.gradient(model, here, y, watch)
        peak = rows(grad.flatten(1).abs().amax(1), x)
        grad = grad / torch.where(peak > 0, peak, 1)
        most = rows(x.flatten(1).amax(1).clamp_min(1), x)
        logits = state["logits"].detach().requires_grad_()
        with torch.enable_grad():
            soft = self._soft(x, logits)
            crowded = (soft - most).clamp_min(0).square()
            value = (grad * soft - self.capacity * crowded).sum()
            (slope,) = torch.autograd.grad(value, logits)
        logits = logits.detach() + self.step_size * slope.sign()
        there = self.threat.project(self._soft(x, logits), x)
        moved = {"x_adv": there, "logits": logits, "done": done}
        return Step(moved, here, watch.outcome(y), there, done >= self.steps, watch.margin(y))

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:

            def search(at: Tensor, round_: int) -> Tensor:
                part = streams.take(at)
                return run_search(self, model, x[at].detach(), y[at], part, round_)

            return best_round(search, self.restarts, model, x, y, self.loss)

    def _reach(self, x: Tensor) -> int:
        assert isinstance(self.threat, Retiming)
        return min(self.threat.max_shift, x.shape[1] - 1)

    def _soft(self, x: Tensor, logits: Tensor) -> Tensor:
        """Return the soft grid [B, T, C, H, W] of logits [B, 2 D + 1, T, C, H, W]."""
        reach, bins = self._reach(x), x.shape[1]
        shifts = torch.arange(-reach, reach + 1, device=x.device)
        goal = torch.arange(bins, device=x.device) + shifts[:, None]
        inside = ((goal >= 0) & (goal < bins)).view(1, *goal.shape, *[1] * (x.ndim - 2))
        share = torch.where(inside, logits, -torch.inf).softmax(1) * x[:, None]
        soft = torch.zeros_like(x)
        for at, shift in enumerate(range(-reach, reach + 1)):
            first, last = max(0, -shift), bins - max(0, shift)
            part = share[:, at, first:last]
            before, after = first + shift, bins - last - shift
            soft = soft + nn.functional.pad(part, (0, 0) * (x.ndim - 2) + (before, after))
        return soft
