"""SA-PGD: momentum steps, scaled per pixel by the size of recent gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost, start_search
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.attacks.model_access import classify, crafting, is_stochastic
from spikeguard.attacks.searches.apgd_linf_l2 import checkpoints
from spikeguard.attacks.searches.restarts import best_round, rows
from spikeguard.attacks.searches.stepwise import State, Step, Watch
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["SAPGD"]

_MOMENTUM, _SQUARES = 0.5, 0.8
_TINY = 1e-12


@dataclass(frozen=True)
class SAPGD:
    r"""Stable adaptive PGD.

    .. math::
        m \leftarrow 0.5\,m + \frac{g}{\overline{|g|}}, \quad
        v \leftarrow 0.8\,v + \frac{g^2}{\overline{g^2}}, \quad
        x' \leftarrow P\Bigl(x' + \operatorname{clip}\bigl(\eta\,m / \sqrt v,
        -\eta, \eta\bigr)\Bigr)

    The means are over all elements of a sample. The step size eta starts at eps and is halved at
    each checkpoint of APGD, regardless of the loss; the search never returns to an earlier point. A
    zero gradient adds nothing to m and v, and a pixel whose gradient is always zero does not move.

    The source defines it for Linf. In other balls the step is along the steepest direction of m and
    v is one number per sample: the step length is eta ||m|| / sqrt(v), at most eta, where m
    accumulates g / ||g|| and v accumulates ones.

    A search returns the last misclassified point, or the point of highest loss if there is none.
    Against a stochastic model one misclassified draw is not enough, so the result is the point of
    highest loss, averaged over the draws of ``EoT``; restarts are compared on fresh draws.

    Args:
        threat: The set the adversary may use.
        steps: Gradient steps of a search, >= 1.
        restarts: Searches from different random starts, >= 1; only for samples not fooled yet.
        loss: Per-sample loss ``(logits, y) -> [B]`` to maximise.
        gradient: How the loss is differentiated; in the source ``ASSG``.

    Raises:
        ValueError: If steps or restarts is below 1.

    Source: arXiv:2512.22522, 2025, and its public code.
    """

    threat: Threat
    steps: int = 100
    restarts: int = 1
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"SAPGD: steps must be >= 1, got {self.steps}.")
        if self.restarts < 1:
            raise ValueError(f"SAPGD: restarts must be >= 1, got {self.restarts}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample; the final point of a search costs a forward pass."""
        forward = FORWARD if self.restarts == 1 else 2 * FORWARD
        return self.restarts * (self.steps * gradient_cost(self.gradient) + forward)

    @property
    def rounds(self) -> int:
        """Largest number of searches per sample."""
        return self.restarts

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the state at a random start."""
        start = self.threat.sample(x, streams.fork("round", round_))
        lowest = torch.full_like(y, -torch.inf, dtype=torch.promote_types(x.dtype, torch.float32))
        return {
            "x_adv": start,
            "momentum": torch.zeros_like(x),
            "squares": torch.zeros_like(x),
            "done": torch.zeros_like(y),
            "best": start,
            "height": lowest,
            "wrong": start,
            "found": torch.zeros_like(y, dtype=torch.bool),
        }

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample."""
        return self._step(model, x, y, state, trusted=True)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            trusted = not is_stochastic(model)

            def search(at: Tensor, round_: int) -> Tensor:
                return self._search(model, x[at], y[at], streams.take(at), round_, trusted)

            return best_round(search, self.restarts, model, x, y, self.loss)

    def _search(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        streams: SampleStreams,
        round_: int,
        trusted: bool,
    ) -> Tensor:
        search = replace(self, gradient=start_search(self.gradient))
        state = self.begin(x, y, streams, round_)
        while True:
            made = search._step(model, x, y, state, trusted)
            if bool(made.over.all()):
                return made.result
            state = made.state

    def _step(self, model: nn.Module, x: Tensor, y: Tensor, state: State, trusted: bool) -> Step:
        watch, here, done = Watch(self.loss), state["x_adv"], state["done"] + 1
        losses, grad = self.gradient(model, here, y, watch)
        wrong = watch.outcome(y) & trusted
        state = _record(state, here, losses, wrong)
        marks = torch.tensor(checkpoints(self.steps), device=y.device)
        halvings = (state["done"][:, None] >= marks).sum(1)
        eta = rows(self.threat.eps * 0.5**halvings, x).to(x.dtype)
        change, momentum, squares = self._change(grad, state["momentum"], state["squares"], eta)
        there = self.threat.project(here + change, x)

        over = done == self.steps
        ended = over.nonzero()[:, 0]
        if len(ended):  # no further gradient follows, so the final point is evaluated here
            logits = classify(model, there[ended], y[ended])
            height, at_end = state["height"].new_full((len(y),), -torch.inf), torch.zeros_like(over)
            if trusted and watch.gave(losses):  # else losses of two kinds would be compared
                height[ended] = self.loss(logits, y[ended]).to(height)
            at_end[ended] = (logits.argmax(1) != y[ended]) & trusted
            state = _record(state, there, height, at_end)
        result = torch.where(rows(state["found"], x), state["wrong"], state["best"])
        memory = {"momentum": momentum, "squares": squares}
        moved = {**state, **memory, "x_adv": there, "done": done}
        return Step(moved, here, wrong, result, over, watch.margin(y))

    def _change(
        self, grad: Tensor, momentum: Tensor, squares: Tensor, eta: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the step, and the new momentum and squares."""
        peak = rows(grad.flatten(1).abs().amax(1), grad)
        grad = grad / torch.where(peak > 0, peak, 1)  # this scale cancels in g / mean
        pixels = self.threat.norm == "linf"
        mean = rows(grad.flatten(1).abs().mean(1), grad)
        square = rows(grad.flatten(1).square().mean(1), grad)
        size, square = (torch.where(part > 0, part, 1) for part in (mean, square))
        if pixels:
            momentum = _MOMENTUM * momentum + grad / size
            squares = _SQUARES * squares + grad.square() / square
            wanted = eta * momentum / (squares.sqrt() + _TINY)
            return torch.minimum(torch.maximum(wanted, -eta), eta), momentum, squares
        length = rows(grad.flatten(1).norm(dim=1), grad)
        momentum = _MOMENTUM * momentum + grad / torch.where(length > 0, length, 1)
        squares = _SQUARES * squares + (length > 0).to(grad.dtype)
        pace = rows(momentum.flatten(1).norm(dim=1), grad) / (squares.sqrt() + _TINY)
        return eta * pace.clamp_max(1) * self.threat.steepest(momentum), momentum, squares


def _record(state: State, point: Tensor, losses: Tensor, wrong: Tensor) -> State:
    """Record points as "best" where the loss is the highest so far, as "wrong" if misclassified."""
    better, misled = rows(losses > state["height"], point), rows(wrong, point)
    return {
        **state,
        "best": torch.where(better, point, state["best"]),
        "height": torch.maximum(losses.to(state["height"]), state["height"]),
        "wrong": torch.where(misled, point, state["wrong"]),
        "found": state["found"] | wrong,
    }
