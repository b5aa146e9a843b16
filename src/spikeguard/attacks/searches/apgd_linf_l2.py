"""Step rule of APGD in Linf and L2 balls: momentum, and a step size halved at checkpoints."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from spikeguard.attacks.searches.restarts import rows
from spikeguard.attacks.searches.stepwise import State
from spikeguard.attacks.threat import Threat

__all__ = ["Momentum", "checkpoints"]

_RISING = 0.75  # rho: the fraction of steps that must raise the loss
_ALPHA = 0.75  # weight of the gradient step; the momentum has the rest


class Momentum:
    """Step rule of APGD in Linf and L2 balls: momentum, and a step size halved at checkpoints.

    Args:
        threat: The set the adversary may use.
        steps: Steps, >= 1; one point more is evaluated.
    """

    def __init__(self, threat: Threat, steps: int):
        self.start, self.evaluations = threat, steps + 1
        marks = [0, *checkpoints(steps)]
        self._interval = [0] * (steps + 1)
        for before, mark in pairwise(marks):
            self._interval[mark] = mark - before

    def in_threat_set(self, done: Tensor) -> Tensor:
        """Whether an evaluated point is in the threat set [B]: always."""
        return torch.ones_like(done, dtype=torch.bool)

    def begin(self, x: Tensor, start: Tensor) -> State:
        """Return the step rule's initial state of each sample."""
        value = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        high = torch.promote_types(x.dtype, torch.float32)
        return {
            "before": start,
            "eta": value + 2 * self.start.eps,
            "last": torch.full_like(value, torch.inf, dtype=high),
            "rises": torch.zeros_like(value, dtype=torch.int64),
            "peak": torch.zeros_like(value, dtype=high),  # best loss at the last checkpoint
            "kept": torch.ones_like(value, dtype=torch.bool),  # step size not halved then
        }

    def move(self, x: Tensor, state: State, losses: Tensor, grad: Tensor) -> State:
        """Return the state at the next point; the current point is already in "best"."""
        done, best_loss = state["done"], state["best_loss"]
        interval = torch.tensor(self._interval, device=done.device)[done]
        first, due = done == 0, interval > 0
        rises = state["rises"] + (losses > state["last"])
        peak = torch.where(first, best_loss, state["peak"])
        few = rises < _RISING * interval
        stuck = state["kept"] & (best_loss <= peak)
        halve = due & (few | stuck)
        eta = torch.where(halve, state["eta"] / 2, state["eta"])
        here = torch.where(rows(halve, x), state["best"], state["x_adv"])
        grad = torch.where(rows(halve, x), state["best_grad"], grad)

        project = self.start.project
        straight = project(here + rows(eta, x) * self.start.steepest(grad), x)
        alpha = rows(torch.where(first, 1, _ALPHA).to(x.dtype), x)
        there = here + alpha * (straight - here) + (1 - alpha) * (here - state["before"])
        return state | {
            "x_adv": project(there, x),
            "before": here,
            "eta": eta,
            "last": torch.where(halve, best_loss, losses.to(best_loss)),
            "rises": rises.masked_fill(due, 0),
            "peak": torch.where(due, best_loss, peak),
            "kept": torch.where(due, ~halve, state["kept"]),
        }


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which APGD decides whether to halve the step size.

    Example:
        >>> checkpoints(100)
        [22, 41, 57, 70, 80, 87, 93, 99]
    """
    percent, apart, found = 22, 22, []
    while percent < 100:
        found.append(-(-percent * steps // 100))
        apart = max(apart - 3, 6)
        percent += apart
    return sorted(mark for mark in set(found) if mark < steps)
