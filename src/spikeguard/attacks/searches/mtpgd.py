"""MTPGD: one gradient search for each class that a sample could be taken for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost, start_search
from spikeguard.attacks.losses import margin, targeted_margin
from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.searches.active_set import State, Step, Watch, can_step
from spikeguard.attacks.searches.restarts import best_round, rows, runner_up, until_fooled
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["MTPGD"]

_DECAYED_AT = (0.5, 0.75)  # shares of the steps after which a step is a tenth as long


@dataclass(frozen=True)
class MTPGD:
    r"""Multi-targeted PGD: for each target t, PGD on z_t - z_y from a random start.

    The margin to the best other class changes its slope wherever another class becomes the best;
    towards one class it does not. Targets are tried in the order of the clean logits, the runner-up
    first. A step is a tenth as long after half of a target's steps, and a hundredth after three
    quarters. A sample is done at its first point that fools the model, whatever class it
    is taken for.

    Against a model with noise one wrong answer proves nothing: every target is searched to its
    end, and what the searches found is compared on ten fresh draws. So it is, without noise and
    between targets, for a gradient that learns from step to step.

    Args:
        threat: The set the adversary may use.
        steps: Gradient steps for each target, >= 1.
        step_size: Length of the first steps, in input units; None is 5 eps / steps, so that the
            first half of them could go 2.5 eps.
        targets: How many classes are tried, at most all others; 0 is all others.
        loss: Per-sample loss ``(logits, y, target) -> [B]`` to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If steps is below 1, step_size is not positive or targets is negative.

    Source: Gowal et al., "An alternative surrogate loss for PGD-based adversarial testing", 2019
        (arXiv:1910.09338).
    """

    threat: Threat
    steps: int = 100
    step_size: float | None = None
    targets: int = 0
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = targeted_margin
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"MTPGD: steps must be >= 1, got {self.steps}.")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"MTPGD: step_size must be positive, got {self.step_size:g}.")
        if self.targets < 0:
            raise ValueError(
                f"MTPGD: targets counts classes, >= 0, got {self.targets}; 0 is all others."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations a sample; infinite for all classes, whose number is not known."""
        target = self.steps * gradient_cost(self.gradient) + 2 * FORWARD
        return self.targets * target if self.targets else math.inf

    @property
    def rounds(self) -> int:
        """One: the targets follow each other within it."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the state before the first target."""
        return {
            "x_adv": x,
            "target": torch.zeros_like(y),
            "done": torch.zeros_like(y),
            "name": streams.bits((len(x),), dim=0, device=x.device),
        }

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample."""
        state = self._aim(model, x, y, state)
        here, done = state["x_adv"], state["done"]
        watch = Watch(partial(_toward, loss=self.loss, target=state["target"]))
        _, grad = self.gradient(model, here, y, watch)
        length = rows(self._length(done % self.steps), x).to(x.dtype)
        there = self.threat.project(here + length * self.threat.steepest(grad), x)

        done, wrong = done + 1, watch.outcome(y)
        at_end, over = torch.zeros_like(wrong), torch.zeros_like(wrong)
        ended = (done % self.steps == 0).nonzero()[:, 0]
        if len(ended):  # nobody takes a gradient there, so it is looked at here
            logits = classify(model, there[ended], y[ended])
            at_end[ended] = logits.argmax(1) != y[ended]
            over[ended] = done[ended] == self.steps * self._count(logits.shape[1])
        seen = torch.where(rows(at_end & ~wrong, x), there, here)
        moved = {**state, "x_adv": there, "done": done}
        return Step(moved, seen, wrong | at_end, there, over)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left as it was."""
        with crafting(model, x, y, generator) as streams:
            if can_step(self, model):
                return until_fooled(self, model, x, y, streams)
            state = self.begin(x, y, streams, 0)

            def search(at: Tensor, round_: int) -> Tensor:
                its = {name: part[at] for name, part in state.items()}
                its["done"] = its["done"] + round_ * self.steps
                attack = replace(self, gradient=start_search(self.gradient))
                for _ in range(self.steps):
                    its = attack.step(model, x[at], y[at], its).state
                return its["x_adv"]

            count = self._count(classify(model, x, y).shape[1])
            return best_round(search, count, model, x, y, margin)

    def _aim(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> State:
        """Give those who begin a target its class and its random start."""
        new = (state["done"] % self.steps == 0).nonzero()[:, 0]
        if not len(new):
            return state
        rank = state["done"][new] // self.steps
        start, target = state["x_adv"].clone(), state["target"].clone()
        target[new] = runner_up(classify(model, x[new], y[new]), y[new], rank)
        start[new] = self.threat.sample(x[new], SampleStreams(0, state["name"][new] + rank))
        return {**state, "x_adv": start, "target": target}

    def _length(self, done: Tensor) -> Tensor:
        """Return how long a step is, by the steps that were made for its target [B]."""
        first = 5 * self.threat.eps / self.steps if self.step_size is None else self.step_size
        limits = torch.tensor([share * self.steps for share in _DECAYED_AT], device=done.device)
        return first * 0.1 ** (done[:, None] >= limits).sum(1)

    def _count(self, classes: int) -> int:
        """Return how many targets there are in a model of so many classes."""
        return min(self.targets or classes - 1, classes - 1)


def _toward(
    logits: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor, Tensor], Tensor], target: Tensor
) -> Tensor:
    return loss(logits, y, target)
