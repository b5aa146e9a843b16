"""MI-FGSM: signed steps along a running sum of normalised gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost, start_search
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.attacks.model_access import crafting
from spikeguard.attacks.searches.restarts import rows
from spikeguard.attacks.searches.stepwise import State, Step, Watch
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["MIFGSM", "l1_unit"]


@dataclass(frozen=True)
class MIFGSM:
    r"""Momentum iterative fast gradient sign method; starts at x and returns the last iterate.

    .. math::
        m \leftarrow \mu m + \frac{g}{\lVert g \rVert_1}, \qquad
        x' \leftarrow P(x' + \alpha\,d(m))

    The norm is over all elements of a sample, including the time axis of event frames. A zero
    gradient adds nothing: the sample continues along its momentum.

    The last iterate is returned against a stochastic model too, regardless of single draws. Average
    the gradient with ``EoT`` there.

    Args:
        threat: The set the adversary may use; it defines the projection P and the direction d.
        steps: Gradient steps, >= 1.
        step_size: Length of one step, in input units; None is eps / steps, as in the source.
        decay: The momentum factor mu, >= 0; 0 is an iterated FGSM.
        loss: Per-sample loss ``(logits, y) -> [B]`` to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If steps is below 1, step_size is not positive or decay is negative.

    Source: Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018 (arXiv:1710.06081).
    """

    exempt_from: ClassVar[frozenset[str]] = frozenset({"moves_in_l1"})

    threat: Threat
    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"MIFGSM: steps must be >= 1, got {self.steps}.")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"MIFGSM: step_size must be positive, got {self.step_size:g}.")
        if not 0 <= self.decay < math.inf:
            raise ValueError(
                f"MIFGSM: decay is the factor of the momentum, >= 0, got {self.decay:g}; "
                "1 keeps it whole, 0 is an iterated FGSM."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        return self.steps * gradient_cost(self.gradient)

    @property
    def step_length(self) -> float:
        """Length of one step, in input units."""
        return self.threat.eps / self.steps if self.step_size is None else self.step_size

    @property
    def rounds(self) -> int:
        """One, because the search is deterministic."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the state at x, with zero momentum."""
        return {"x_adv": x, "momentum": torch.zeros_like(x), "done": torch.zeros_like(y)}

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample."""
        watch, here, done = Watch(self.loss), state["x_adv"], state["done"] + 1
        _, grad = self.gradient(model, here, y, watch)
        momentum = self.decay * state["momentum"] + l1_unit(grad)
        length = self.step_length
        there = self.threat.project(here + length * self.threat.steepest(momentum), x)
        moved = {"x_adv": there, "momentum": momentum, "done": done}
        return Step(moved, here, watch.outcome(y), there, done == self.steps)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            search = replace(self, gradient=start_search(self.gradient))
            state = search.begin(x, y, streams, 0)
            for _ in range(self.steps):
                state = search.step(model, x, y, state).state
            return state["x_adv"]


def l1_unit(grad: Tensor) -> Tensor:
    """Return g / ||g||_1 of each sample; zero stays zero."""
    peak = rows(grad.flatten(1).abs().amax(1), grad)
    scaled = grad / torch.where(peak > 0, peak, 1)  # avoids overflow for tiny gradients
    unit: Tensor = scaled / rows(scaled.flatten(1).abs().sum(1), grad).clamp_min(1)
    return unit
