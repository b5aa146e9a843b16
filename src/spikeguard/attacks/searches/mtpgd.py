"""MTPGD (multi-targeted PGD): one gradient search for each target class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost, start_search
from spikeguard.attacks.losses import margin, targeted_margin
from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.searches.mifgsm import l1_unit
from spikeguard.attacks.searches.restarts import best_round, ranked_class, rows, until_fooled
from spikeguard.attacks.searches.stepwise import State, Step, Watch, can_step
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["MTPGD"]

_DECAYED_AT = (0.5, 0.75)  # fractions of the steps after which the step size is divided by 10


@dataclass(frozen=True)
class MTPGD:
    r"""Multi-targeted PGD: for each target t, PGD on z_t - z_y from a random start.

    .. math::
        m \leftarrow \mu m + \frac{g}{\lVert g \rVert_1}, \qquad
        x' \leftarrow P(x' + \alpha_k\,d(m)), \qquad g = \nabla (z_t - z_y)

    The margin to the best other class has a kink wherever the best class changes; the margin to a
    fixed class has none. Targets are tried in the order of the clean logits, the runner-up first.
    The step size is divided by 10 after half of a target's steps, and again after three quarters. A
    sample stops at its first misclassified point, whichever class is predicted.

    Against a stochastic model one misclassified draw is not enough: every target is searched for
    all steps, and the results are compared on ten fresh draws. For an adaptive gradient every
    target is also searched for all steps, and a fooled sample skips the remaining targets.

    Args:
        threat: The set the adversary may use.
        steps: Gradient steps for each target, >= 1.
        step_size: Length of the first steps, in input units; None is 5 eps / steps, so that the
            first half can cover 2.5 eps.
        targets: Number of target classes, at most all others; 0 is all others.
        loss: Per-sample loss ``(logits, y, target) -> [B]`` to maximise.
        gradient: How the loss is differentiated.
        momentum: The momentum factor mu, >= 0; each target starts without momentum. 0 follows the
            gradient g itself. TGO (arXiv:2602.20548, section 5.2) names 0.9.

    Raises:
        ValueError: If steps is below 1, step_size is not positive, or targets or momentum is
            negative.

    Source: Gowal et al., "An alternative surrogate loss for PGD-based adversarial testing", 2019
        (arXiv:1910.09338). The momentum is that of Dong et al., CVPR 2018 (arXiv:1710.06081).
    """

    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum"})
    added_later: ClassVar[tuple[str, ...]] = ("momentum",)

    threat: Threat
    steps: int = 100
    step_size: float | None = None
    targets: int = 0
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = targeted_margin
    gradient: Gradient = BACKPROP
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"MTPGD: steps must be >= 1, got {self.steps}.")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"MTPGD: step_size must be positive, got {self.step_size:g}.")
        if self.targets < 0:
            raise ValueError(
                f"MTPGD: targets counts classes, >= 0, got {self.targets}; 0 is all others."
            )
        if not 0 <= self.momentum < math.inf:
            raise ValueError(
                f"MTPGD: momentum is a factor >= 0, got {self.momentum:g}; 0 is no momentum."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample; infinite for ``targets=0``, a number not known here."""
        target = self.steps * gradient_cost(self.gradient) + 2 * FORWARD
        return self.targets * target if self.targets else math.inf

    @property
    def step_length(self) -> float:
        """Length of the first steps, in input units."""
        return 5 * self.threat.eps / self.steps if self.step_size is None else self.step_size

    @property
    def rounds(self) -> int:
        """One, which runs through all targets."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the state before the first target."""
        moving = {"momentum": torch.zeros_like(x)} if self.momentum else {}
        return {
            **moving,
            "x_adv": x,
            "target": torch.zeros_like(y),
            "done": torch.zeros_like(y),
            "name": streams.bits((len(x),), dim=0, device=x.device),
        }

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample."""
        state = self._set_target(model, x, y, state)
        here, done = state["x_adv"], state["done"]
        watch = Watch(partial(_toward, loss=self.loss, target=state["target"]))
        _, grad = self.gradient(model, here, y, watch)
        if self.momentum:
            grad = self.momentum * state["momentum"] + l1_unit(grad)
            state = {**state, "momentum": grad}
        length = rows(self._length(done % self.steps), x).to(x.dtype)
        there = self.threat.project(here + length * self.threat.steepest(grad), x)

        done, wrong = done + 1, watch.outcome(y)
        at_end, over = torch.zeros_like(wrong), torch.zeros_like(wrong)
        ended = (done % self.steps == 0).nonzero()[:, 0]
        if len(ended):  # no further gradient follows, so the final point is evaluated here
            logits = classify(model, there[ended], y[ended])
            at_end[ended] = logits.argmax(1) != y[ended]
            over[ended] = done[ended] == self.steps * self._count(logits.shape[1])
        seen = torch.where(rows(at_end & ~wrong, x), there, here)
        moved = {**state, "x_adv": there, "done": done}
        return Step(moved, seen, wrong | at_end, there, over)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
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

    def _set_target(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> State:
        """Set the target class and the random start of samples that begin a target."""
        new = (state["done"] % self.steps == 0).nonzero()[:, 0]
        if not len(new):
            return state
        rank = state["done"][new] // self.steps
        start, target = state["x_adv"].clone(), state["target"].clone()
        target[new], _ = ranked_class(model, x[new], y[new], rank, state["name"][new])
        if self.momentum:
            moving = state["momentum"].clone()
            moving[new] = 0
            state = {**state, "momentum": moving}
        start[new] = self.threat.sample(x[new], SampleStreams(0, state["name"][new] + rank))
        return {**state, "x_adv": start, "target": target}

    def _length(self, done: Tensor) -> Tensor:
        """Return the step size, given the number of steps done for the current target [B]."""
        first = self.step_length
        limits = torch.tensor([share * self.steps for share in _DECAYED_AT], device=done.device)
        return first * 0.1 ** (done[:, None] >= limits).sum(1)

    def _count(self, classes: int) -> int:
        """Return the number of targets for a model with ``classes`` classes."""
        return min(self.targets or classes - 1, classes - 1)


def _toward(
    logits: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor, Tensor], Tensor], target: Tensor
) -> Tensor:
    return loss(logits, y, target)
