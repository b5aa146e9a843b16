"""SDA: the sparse dynamic attack, which flips tested candidates and undoes what is not needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.event_threats.base import largest
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost, unwrap
from spikeguard.attacks.gradients.mean_field import MeanField, mean_field
from spikeguard.attacks.losses import margin
from spikeguard.attacks.model_access import classify, crafting, is_stochastic
from spikeguard.attacks.searches.events.search_batch import (
    changes,
    kept,
    portion,
    require_norm,
    require_positive,
    run_search,
)
from spikeguard.attacks.searches.restarts import rows
from spikeguard.attacks.searches.stepwise import State, Step
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["SDA"]

_TINY = 1e-12  # entries without a gradient rank below all others, in random order
_LEAST = 1e-9  # a candidate without effect ranks last among those that may flip
_AT_ONCE = 128  # inputs in one forward pass over candidates


@dataclass(frozen=True)
class SDA:
    r"""Sparse dynamic attack: few flips, each tested by a forward pass.

    In step n the ``growth`` n entries with the largest gradient of the margin are candidates,
    among those that may flip in the direction that helps. Entries without a gradient come last, in
    random order. A forward pass for each candidate gives the change of the margin that this flip
    alone makes. Of the candidates that do not make the model surer, those of largest effect are
    flipped together, at most budget / steps of them. When the model is fooled, flips are undone in
    the order of their effect, the smallest first: a binary search finds the longest prefix without
    which the model is still fooled.

    The source sets no budget and flips all candidates that do not make the model surer; so does
    this search where the budget exceeds the steps times the candidates. Against a model with noise
    nothing is undone, and one draw decides between candidates; with the gradient of the mean field
    they are tested without noise.

    Args:
        threat: Flips or edits.
        steps: Steps, >= 1; step n costs growth * n forward passes.
        growth: Candidates added in every step, >= 1.
        gradient: How the margin is differentiated.

    Raises:
        ValueError: If a setting is below 1, or the threat set is of another kind.

    Source: Lun et al., "Towards effective and sparse adversarial attack on spiking neural networks
        via breaking invisible surrogate gradients", CVPR 2025 (arXiv:2503.03272), and its code.
    """

    norms: ClassVar[tuple[str, ...]] = ("flips", "edits")
    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum"})

    threat: Threat
    steps: int = 20
    growth: int = 10
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        require_norm(self)
        require_positive(self, "steps", "growth")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        passes = self.growth * self.steps * (self.steps + 1) / 2 + 3 * self.steps
        return self.steps * gradient_cost(self.gradient) + passes * FORWARD

    @property
    def rounds(self) -> int:
        """One search per sample."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state, at x."""
        return {
            "x_adv": x,
            "effect": torch.zeros_like(x),
            "done": torch.zeros_like(y),
            "name": streams.bits((len(x),), dim=0, device=x.device),
        }

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Flip the candidates of one step that help; undo flips of the samples that are fooled."""
        here, done = state["x_adv"], state["done"] + 1
        height, grad = self.gradient(model, here, y, margin)
        chosen, known = self._candidates(here, x, grad, state["name"], done)
        with _as_differentiated(self.gradient, model) as draws:
            if not draws:  # the gradient may be of another loss, or of a network beside the model
                height = margin(classify(model, here, y), y)
            effect = self._effects(model, here, y, height, chosen, known, draws)
        flips = torch.zeros_like(x).flatten(1)
        helpful = torch.where(known & (effect >= 0), effect + _LEAST, 0)
        best = largest(helpful, portion(self.threat, self.steps, here, x))
        flips.scatter_add_(1, chosen, best.to(x.dtype))
        sizes = torch.zeros_like(flips).scatter_add_(1, chosen, effect.abs() * known)
        flips, sizes = flips.view_as(x) > 0, sizes.view_as(x)
        there = torch.where(flips, 1 - here, here)
        effect = torch.where(flips, sizes, state["effect"])
        noisy = is_stochastic(model)
        wrong = torch.zeros_like(known[:, 0]) if noisy else _misled(model, there, y)
        at = wrong.nonzero()[:, 0]
        if len(at):
            there = there.clone()
            there[at] = _undone(model, there[at], x[at], y[at], effect[at])
        inside = self.threat.distance(there, x) <= self.threat.eps
        result = kept(self.threat, there, x, effect)
        over = wrong | ~known.any(1) | (done >= self.steps)
        moved = {**state, "x_adv": there, "effect": effect, "done": done}
        return Step(moved, result, wrong & inside, result, over)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            return run_search(self, model, x.detach(), y, streams)

    def _candidates(
        self, here: Tensor, x: Tensor, grad: Tensor, name: Tensor, done: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return entries [B, k], and which of them are candidates of their sample."""
        drawn = SampleStreams(0, name + done).uniform(x.shape, device=x.device).to(x.dtype)
        peak = rows(grad.flatten(1).abs().amax(1), x)
        grad = grad / torch.where(peak > 0, peak, 1)
        filled = torch.where(grad == 0, (1 - 2 * here) * _TINY * (1 + drawn), grad)
        _, gain = changes(self.threat, here, x, filled)
        count = (self.growth * done).clamp(max=x[0].numel())
        gain = gain.flatten(1)  # a stable sort: equal gains rank alike in any batch
        chosen = gain.argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
        value = gain.gather(1, chosen)
        ranks = torch.arange(chosen.shape[1], device=x.device)
        return chosen, (value > 0) & (ranks < count[:, None])

    @staticmethod
    def _effects(
        model: nn.Module,
        here: Tensor,
        y: Tensor,
        height: Tensor,
        chosen: Tensor,
        known: Tensor,
        draws: bool,
    ) -> Tensor:
        """Return by how much each candidate alone raises the margin [B, k]; 0 for the others."""
        effect = torch.zeros_like(known, dtype=torch.promote_types(here.dtype, torch.float32))
        if draws:  # every pass has all samples, so that each gets its own noise
            parts = [_column(len(y), rank, chosen) for rank in range(chosen.shape[1])]
        else:
            parts = list(torch.split(known.nonzero(), _AT_ONCE))
        for part in parts:
            sample, entry = part[:, 0], chosen[part[:, 0], part[:, 1]]
            tried = here[sample].flatten(1)
            tried.scatter_(1, entry[:, None], 1 - tried.gather(1, entry[:, None]))
            logits = classify(model, tried.view(-1, *here.shape[1:]), y[sample])
            effect[part[:, 0], part[:, 1]] = (margin(logits, y[sample]) - height[sample]).to(effect)
        return effect


@contextmanager
def _as_differentiated(gradient: Gradient, model: nn.Module) -> Iterator[bool]:
    """Let the passes be those of the mean field where it is differentiated; yield if they draw."""
    if isinstance(unwrap(gradient), MeanField):
        with mean_field(model):
            yield False
    else:
        yield is_stochastic(model)


def _column(samples: int, rank: int, like: Tensor) -> Tensor:
    """Return the pairs (sample, rank) of all samples."""
    every = torch.arange(samples, device=like.device)
    return torch.stack([every, torch.full_like(every, rank)], 1)


def _misled(model: nn.Module, points: Tensor, y: Tensor) -> Tensor:
    return classify(model, points, y).argmax(1) != y


def _undone(model: nn.Module, there: Tensor, x: Tensor, y: Tensor, effect: Tensor) -> Tensor:
    """Undo the longest prefix of flips, the smallest effect first, that is not needed."""
    flat, clean = there.flatten(1), x.flatten(1)
    changed = flat != clean
    order = torch.where(changed, effect.flatten(1), torch.inf).argsort(dim=1, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(order.shape[1], device=x.device).expand_as(order))
    low, high = torch.zeros_like(y), changed.sum(1)  # low can be undone, high cannot
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        tried = torch.where(ranks < middle[:, None], clean, flat).view_as(x)
        wrong = _misled(model, tried, y)
        low, high = torch.where(wrong, middle, low), torch.where(wrong, high, middle)
    return torch.where(ranks < low[:, None], clean, flat).view_as(x)
