"""SpikeFool: sparse steps to a decision boundary that is found between the grids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost
from spikeguard.attacks.losses import targeted_margin
from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.searches.events.search_batch import (
    changes,
    kept,
    portion,
    require_norm,
    require_positive,
    run_search,
)
from spikeguard.attacks.searches.restarts import rows, runner_up
from spikeguard.attacks.searches.stepwise import State, Step
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["SpikeFool"]

_OVERSHOOT = 0.02


@dataclass(frozen=True)
class SpikeFool:
    r"""SparseFool on spikes: find a boundary by DeepFool, cross its plane with few flips.

    A step starts from the current grid x'. DeepFool moves a point between the grids to the nearest
    boundary x_b, beyond it by 2 %; w is the boundary's normal there. Then the entries with the
    largest abs(w) that may still move along w flip, one by one, until the plane through
    :math:`x' + \lambda (x_b - x')` is crossed or budget / steps of them have flipped. The points
    that are scored are grids. The search ends when the model is fooled.

    The source sets a limit of 1,000 flips, and none on a step: so does this search where the budget
    exceeds the steps times the entries.

    Args:
        threat: Flips or edits.
        steps: Steps, >= 1.
        boundary_steps: DeepFool's steps in each of them, >= 1.
        targets: Classes that DeepFool compares, those of highest logit, >= 1.
        overscale: How far beyond the boundary the plane lies, the lambda above, >= 1.
        gradient: How a difference of logits is differentiated.

    Raises:
        ValueError: If a setting is out of range, or the threat set is of another kind.

    Source: Büchel et al., "Adversarial attacks on spiking convolutional neural networks for
        event-based vision", 2022 (arXiv:2110.02929).
    """

    norms: ClassVar[tuple[str, ...]] = ("flips", "edits")
    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum"})

    threat: Threat
    steps: int = 20
    boundary_steps: int = 10
    targets: int = 3
    overscale: float = 2.0
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        require_norm(self)
        require_positive(self, "steps", "boundary_steps", "targets")
        if not 1 <= self.overscale < math.inf:
            raise ValueError(f"SpikeFool: overscale is >= 1, got {self.overscale:g}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        inner = self.boundary_steps * (self.targets * gradient_cost(self.gradient) + FORWARD)
        return self.steps * (inner + 2 * FORWARD)

    @property
    def rounds(self) -> int:
        """One search per sample."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state, at x."""
        return {"x_adv": x, "weight": torch.zeros_like(x), "done": torch.zeros_like(y)}

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Find a boundary and cross its plane."""
        here, done = state["x_adv"], state["done"] + 1
        edge, normal = self._boundary(model, here, y)
        needed = self.overscale * (normal * (edge - here)).flatten(1).sum(1)
        size = changes(self.threat, here, x, normal)[1].flatten(1)
        order = size.argsort(dim=1, descending=True, stable=True)
        ranked = size.gather(1, order)
        before = ranked.cumsum(1) - ranked
        allowed = portion(self.threat, self.steps, here, x)[:, None]
        ranks = torch.arange(ranked.shape[1], device=x.device)
        crossed = (before < needed[:, None]) & (ranked > 0) & (ranks < allowed)
        flips = torch.zeros_like(crossed).scatter(1, order, crossed).view_as(x)
        tried = torch.where(flips, 1 - here, here)
        weight = torch.where(flips, normal.abs(), state["weight"])
        there = kept(self.threat, tried, x, weight)
        wrong = classify(model, there, y).argmax(1) != y
        stuck = ~flips.flatten(1).any(1)
        moved = {"x_adv": tried, "weight": weight, "done": done}
        return Step(moved, there, wrong, there, stuck | (done >= self.steps))

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            return run_search(self, model, x.detach(), y, streams)

    def _boundary(self, model: nn.Module, here: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return DeepFool's point beyond the nearest boundary, and the normal last used."""
        point, normal = here, torch.zeros_like(here)
        for _ in range(self.boundary_steps):
            logits = classify(model, point, y)
            right = logits.argmax(1) == y
            if not bool(right.any()):
                break
            nearest = torch.full_like(y, torch.inf, dtype=torch.float64)
            direction, change = torch.zeros_like(here), torch.zeros_like(here)
            for rank in range(min(self.targets, logits.shape[1] - 1)):
                target = runner_up(logits, y, torch.full_like(y, rank))
                value, grad = self.gradient(model, point, y, partial(_toward, target=target))
                square = grad.flatten(1).double().square().sum(1)
                distance = torch.where(square > 0, value.double().abs() / square.sqrt(), torch.inf)
                scale = (value.double().abs() + 1e-4) / torch.where(square > 0, square, 1)
                closer = rows((distance < nearest) & right, here)
                change = torch.where(closer, (rows(scale, here) * grad).to(here.dtype), change)
                direction = torch.where(closer, grad, direction)
                nearest = torch.minimum(nearest, distance)
            known = right & (nearest < torch.inf)  # else keep the normal of the step before
            normal = torch.where(rows(known, here), direction, normal)
            moved = point + (1 + _OVERSHOOT) * change
            point = torch.where(rows(right, here), moved, point)
        return point, normal


def _toward(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    return targeted_margin(logits, y, target)
