"""Step rule of APGD in an L1 ball: sparse steps, and balls that shrink to the threat set.

The steepest step in an L1 ball changes one pixel, which is too few for an image; a step along the
sign of all pixels wastes the budget. So each step changes the k pixels of largest gradient, and k
depends on the number of pixels changed in the best point so far.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikeguard.attacks.searches.restarts import rows
from spikeguard.attacks.searches.stepwise import State
from spikeguard.attacks.threat import L1

__all__ = ["Sparse"]

_STAGES = ((3, 0.3), (2, 0.3), (1, 0.4))  # (radius in eps, fraction of the steps)
_FIRST = 0.2  # fraction of the pixels that the first steps change
_SPARED = 1.5  # k is the number of pixels changed in the best point, divided by this
_SHRUNK = 0.95  # if the changed pixels fall below this fraction, the step size is reset to eps
_SHORTEST = 10  # the smallest step size is eps divided by this


class Sparse:
    """Step rule of L1-APGD: three stages with radii 3 eps, 2 eps and eps.

    Each stage starts at the projection of the previous stage's best point and keeps its own best.
    Only points of the last stage are in the threat set. A stage evaluates one point more than it
    has steps.

    Args:
        threat: The L1 ball.
        steps: Steps of all stages together, >= 1.

    Source: Croce and Hein, "Mind the box: l1-APGD ...", ICML 2021 (arXiv:2103.01208).
    """

    def __init__(self, threat: L1, steps: int):
        early = [(factor, int(share * steps)) for factor, share in _STAGES[:-1]]
        lengths = [*early, (1, steps - sum(length for _, length in early))]
        wider = [(replace(threat, eps=factor * threat.eps), n) for factor, n in lengths if n]
        stages = [*wider[:-1], (threat, lengths[-1][1])]
        self.balls = [ball for ball, _ in stages]
        self.evaluations = sum(length + 1 for _, length in stages)
        self._stage = [i for i, (_, n) in enumerate(stages) for _ in range(n + 1)]
        self._ends = [place == n for _, n in stages for place in range(n + 1)]
        self._due = [
            0 < place < n and place % max(int(0.04 * n), 1) == 0
            for _, n in stages
            for place in range(n + 1)
        ]

    @property
    def start(self) -> L1:
        """The ball of the random start."""
        return self.balls[0]

    def in_threat_set(self, done: Tensor) -> Tensor:
        """Whether an evaluated point, counted from 0, is in the threat set [B]."""
        return self._at(self._stage, done) == len(self.balls) - 1

    def begin(self, x: Tensor, start: Tensor) -> State:
        """Return the step rule's initial state of each sample."""
        pixels = x[0].numel()
        one = torch.ones(len(x), dtype=x.dtype, device=x.device)
        return {
            "eta": one * self.start.eps,
            "sparsity": one * _FIRST * pixels,
            "changed": one * pixels,
        }

    def move(self, x: Tensor, state: State, losses: Tensor, grad: Tensor) -> State:
        """Return the state at the next point; the current point is already in "best"."""
        stage = self._at(self._stage, state["done"])
        ends = self._at(self._ends, state["done"]) & (stage + 1 < len(self.balls))
        due = self._at(self._due, state["done"])
        radii = torch.tensor([ball.eps for ball in self.balls], dtype=x.dtype, device=x.device)
        eps, best = radii[stage], state["best"]

        changed = _changed(best, x)
        shrunk = changed < _SHRUNK * state["changed"]
        shorter = (state["eta"] / _SPARED).maximum(eps / _SHORTEST)
        eta = torch.where(due, torch.where(shrunk, eps, shorter), state["eta"])
        sparsity = torch.where(due, changed / _SPARED, state["sparsity"])
        changed = torch.where(due, changed, state["changed"])
        back = rows(due & shrunk, x)
        here = torch.where(back, best, state["x_adv"])
        grad = torch.where(back, state["best_grad"], grad)

        there = here + rows(eta, x) * sparse_sign(grad, sparsity)
        there = torch.where(rows(ends, x), best, there)
        stage = stage + ends.long()
        for i, ball in enumerate(self.balls):
            inside = stage == i
            if bool(inside.any()):
                there[inside] = ball.project(there[inside], x[inside])
        entered = _changed(there, x)
        return state | {
            "x_adv": there,
            "eta": torch.where(ends, radii[stage], eta),
            "sparsity": torch.where(ends, entered / _SPARED, sparsity),
            "changed": torch.where(ends, entered, changed),
            "best_loss": state["best_loss"].masked_fill(ends, -torch.inf),
        }

    def _at(self, table: list[int] | list[bool], done: Tensor) -> Tensor:
        return torch.tensor(table, device=done.device)[done]


def sparse_sign(grad: Tensor, sparsity: Tensor) -> Tensor:
    """Return the step of L1 length 1 that changes the pixels of largest gradient equally.

    Args:
        grad: Gradients [B, ...]; a zero gradient gives a zero step.
        sparsity: Number of pixels to change [B], rounded, at least 1; ties can make it larger.
    """
    size = grad.flatten(1).abs()
    place = sparsity.round().long().clamp(1, size.shape[1]) - 1
    least = size.sort(1, descending=True).values.gather(1, place[:, None])
    sign = grad.flatten(1).sign() * (size >= least)
    unit = sign / sign.abs().sum(1, keepdim=True).clamp_min(1)
    return unit.view_as(grad)


def _changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return how many pixels differ [B]."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)
