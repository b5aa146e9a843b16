"""SpikeCompatible: random flips drawn by the gradient, and at random where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.attacks.model_access import crafting
from spikeguard.attacks.searches.events.search_batch import (
    kept,
    require_norm,
    require_positive,
    run_search,
)
from spikeguard.attacks.searches.restarts import rows
from spikeguard.attacks.searches.stepwise import State, Step, Watch
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["SpikeCompatible"]


@dataclass(frozen=True)
class SpikeCompatible:
    r"""Attack with spike-compatible gradients and the restricted spike flipper (RSF).

    In every step an entry is drawn with probability :math:`|g| / \max |g|` and, where it is drawn
    and the grid allows it, moves by sign(g): the gradient turns into changes of 0, +1 and -1. A
    sample whose gradient is zero everywhere gets random flips instead, each entry with probability
    ``flip`` (RSF).

    The source sets no budget. Here every point keeps the changes of largest \|g\| / max \|g\| that
    the budget allows.

    Args:
        threat: Flips or edits.
        steps: Gradient steps, >= 1.
        flip: Probability of a flip where the gradient vanishes, in (0, 1].
        loss: Per-sample loss to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If a setting is out of range, or the threat set is of another kind.

    Source: Liang et al., "Exploring adversarial attack in spiking neural networks with
        spike-compatible gradient", TNNLS 2021 (arXiv:2001.01587).
    """

    norms: ClassVar[tuple[str, ...]] = ("flips", "edits")
    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum"})

    threat: Threat
    steps: int = 25
    flip: float = 0.05
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        require_norm(self)
        require_positive(self, "steps")
        if not 0 < self.flip <= 1:
            raise ValueError(
                f"SpikeCompatible: flip is a probability in (0, 1], got {self.flip:g}."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        return self.steps * gradient_cost(self.gradient)

    @property
    def rounds(self) -> int:
        """One search per sample."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state, at x."""
        return {
            "x_adv": x,
            "score": torch.zeros_like(x),
            "done": torch.zeros_like(y),
            "name": streams.bits((len(x),), dim=0, device=x.device),
        }

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Draw the flips of one step; ``seen`` is the point before it."""
        watch, here, done = Watch(self.loss), state["x_adv"], state["done"] + 1
        _, grad = self.gradient(model, here, y, watch)
        peak = rows(grad.flatten(1).abs().amax(1), x)
        size = grad.abs() / torch.where(peak > 0, peak, 1)
        drawn = SampleStreams(0, state["name"] + done).uniform(x.shape, device=x.device).to(x.dtype)
        helps = grad * (1 - 2 * here) > 0
        flips = torch.where(peak > 0, helps & (drawn < size), drawn < self.flip)
        score = torch.where(peak > 0, size, drawn / self.flip)
        tried = torch.where(flips, 1 - here, here)
        score = torch.where(flips, score, state["score"])
        there = kept(self.threat, tried, x, score)
        moved = {**state, "x_adv": there, "score": score, "done": done}
        return Step(moved, here, watch.outcome(y), there, done >= self.steps, watch.margin(y))

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            return run_search(self, model, x.detach(), y, streams)
