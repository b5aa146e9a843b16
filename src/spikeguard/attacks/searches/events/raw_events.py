"""RawEvents: the attack on raw events, a choice of no event, OFF or ON for every position."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.base import (
    BACKPROP,
    Gradient,
    gradient_cost,
    is_adaptive,
    start_search,
)
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.attacks.model_access import DEFAULT_DRAWS, classify, crafting, is_stochastic
from spikeguard.attacks.searches.events.choices import Choices
from spikeguard.attacks.searches.events.search_batch import kept, require_norm, require_positive
from spikeguard.attacks.searches.restarts import mean_logits, rows
from spikeguard.attacks.searches.stepwise import Watch
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["RawEvents"]

_MOMENTUM = 0.75
_TINY = 1e-30  # below it a gradient is none


@dataclass(frozen=True)
class RawEvents:
    r"""Direct attack on raw events: a three-way choice for every candidate position.

    A candidate position (t, h, w) holds no event, an OFF or an ON event, by the logits a. In every
    step ``samples`` grids are tried. One has the likeliest changes, as many as the budget allows;
    the others are drawn: the Gumbel-softmax of a at a ``temperature`` is the soft grid, its largest
    choice the hard one. The gradient of the loss at the hard grid is passed on to the soft one
    (straight through). A gradient with momentum, its largest entry ``step_size``, ascends the mean
    over the samples of

    .. math:: L(E) - \lambda\,\|E - E_0\|_1 - \mu\,\max(0,\ |n(E) - n(E_0)| - r\,n(E_0))

    where the second term is the cost of the edits (insertion and deletion 1, change of polarity 2)
    and the third keeps the number of events n in an interval. The model sees only hard grids of the
    threat set, with the likeliest of their changes where the budget does not allow all of them. At
    the start a grid has as many changes as the budget in the mean. The search of a sample ends at
    the first grid that fools the model; where none does, and against a model with noise, the result
    is the grid of highest loss.

    **Soft and hard success.** A soft grid is no input that a camera could make, yet fools the model
    far more often. :meth:`with_record` also says where a soft grid did.

    The source's candidates are the events of the sample and those of a sample of the target class,
    and it searches towards that class. Here they are the positions within ``reach`` of an event,
    and the loss is untargeted: a result does not depend on other samples.

    Args:
        threat: Edits or flips.
        steps: Steps, >= 1.
        samples: Grids tried in a step, the M of the source, >= 1.
        temperature: Temperature of the Gumbel-softmax, > 0.
        step_size: The largest change of a logit in a step, > 0.
        cost_weight: The weight lambda, >= 0.
        interval: The share r by which the number of events may change without penalty, >= 0.
        interval_weight: The weight mu, >= 0.
        reach: Distance of a candidate from an event in t, h and w, >= 0.
        loss: Per-sample loss to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If a setting is out of range, or the threat set is of another kind.

    Source: Yao et al., "Exploring vulnerabilities in spiking neural networks: direct adversarial
        attacks on raw event data", ECCV 2024; used in appendix A of TGO (arXiv:2602.20548).
    """

    norms: ClassVar[tuple[str, ...]] = ("edits", "flips")
    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum"})
    record_names: ClassVar[tuple[str, ...]] = ("soft", "hard")

    threat: Threat
    steps: int = 50
    samples: int = 4
    temperature: float = 1.0
    step_size: float = 1.0
    cost_weight: float = 1e-3
    interval: float = 0.5
    interval_weight: float = 1e-3
    reach: int = 1
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        require_norm(self)
        require_positive(self, "steps", "samples")
        for name in ("temperature", "step_size"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"RawEvents: {name} must be positive, got {getattr(self, name)}.")
        for name in ("cost_weight", "interval", "interval_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"RawEvents: {name} must be >= 0, got {getattr(self, name)}.")
        if type(self.reach) is not int or self.reach < 0:
            raise ValueError(f"RawEvents: reach is a whole number >= 0, got {self.reach!r}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample; each step has one forward pass at a soft grid."""
        return self.steps * (self.samples * gradient_cost(self.gradient) + FORWARD)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        return self.with_record(model, x, y, generator=generator)[0]

    def with_record(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return adversarial inputs, and by name what else was found out about each sample.

        Returns:
            Inputs shaped like ``x``, and ``{"soft": fooled}``: whether a soft grid of the search,
            or the result, fooled the model [B]; against noise, whether the last soft grid does, in
            the mean of several draws.
        """
        with crafting(model, x, y, generator) as streams:
            return _Search(self, model, x.detach(), y, streams).run()


class _Search:
    """The state of the search of one batch; fooled samples leave it."""

    def __init__(
        self, attack: RawEvents, model: nn.Module, x: Tensor, y: Tensor, streams: SampleStreams
    ):
        self.attack = replace(attack, gradient=start_search(attack.gradient))
        self.model, self.x, self.y, self.streams = model, x, y, streams
        self.noisy = is_stochastic(model)
        self.drops = not self.noisy and not is_adaptive(attack.gradient)
        self.choices = Choices.around(x, attack.reach)
        self.logits = self.choices.start(attack.threat.eps)
        self.momentum = torch.zeros_like(self.logits)
        self.best, self.height = x, torch.full(y.shape, -math.inf, dtype=x.dtype, device=x.device)
        self.soft = torch.zeros_like(y, dtype=torch.bool)

    def run(self) -> tuple[Tensor, dict[str, Tensor]]:
        found, soft = self.x.clone(), self.soft.clone()
        hard = torch.zeros_like(soft)
        left = torch.arange(len(self.x), device=self.x.device)
        for _ in range(self.attack.steps):
            wrong = self._step()
            soft[left] |= self.soft | wrong
            new = ~hard[left]
            found[left[new]] = self.best[new]
            hard[left] |= wrong
            if self.drops and bool(wrong.any()):
                left = left[~wrong]
                self._take((~wrong).nonzero()[:, 0])
            if not len(left) or bool(hard.all()):
                break
        if self.noisy:  # one draw of many that is wrong is no success: the last grid is scored
            soft = mean_logits(self.model, self.grid, self.y, DEFAULT_DRAWS).argmax(1) != self.y
        return found, {"soft": soft}

    def _step(self) -> Tensor:
        """Try grids and take a step; return which samples one of them fooled [B].

        ``best`` is the first grid that fools the model; where none does, that of highest loss.
        """
        attack, x, y = self.attack, self.x, self.y
        logits = self.logits.detach().requires_grad_()
        wrong = torch.zeros_like(y, dtype=torch.bool)
        ascent = torch.zeros_like(logits)
        for draw in range(attack.samples):
            noise = _gumbel(self.streams, logits) if draw else torch.zeros_like(logits)
            with torch.enable_grad():
                soft = self.choices.soft((logits + noise) / attack.temperature)
            if draw:
                hard = self.choices.hard(logits.detach() + noise)
                score = (hard - x).abs() * (soft.detach() - x).abs()
            else:
                hard, score = self.choices.likeliest(logits.detach())
            tried = kept(attack.threat, hard, x, score)
            watch = Watch(attack.loss)
            height, grad = attack.gradient(self.model, tried, y, watch)
            with torch.enable_grad():
                value = (grad * soft).flatten(1).sum(1) - self._penalty(soft)
                (slope,) = torch.autograd.grad(value.sum(), logits)
            ascent += slope / attack.samples
            now = watch.outcome(y) & (not self.noisy)
            better = (now | (height > self.height)) & ~wrong
            self.best = torch.where(rows(better, x), tried, self.best)
            self.height = torch.where(better, height, self.height)
            wrong = wrong | now
            if draw == attack.samples - 1:
                self.grid = soft.detach()
                if not self.noisy:
                    self.soft = classify(self.model, self.grid, y).argmax(1) != y
        self._climb(ascent)
        return wrong

    def _penalty(self, soft: Tensor) -> Tensor:
        """Return the cost of the edits and of leaving the interval [B], by the soft grid."""
        attack = self.attack
        edits = (soft - self.x).abs().flatten(1).sum(1)
        before, after = self.x.flatten(1).sum(1), soft.flatten(1).sum(1)
        beyond = ((after - before).abs() - attack.interval * before).clamp_min(0)
        return attack.cost_weight * edits + attack.interval_weight * beyond

    def _climb(self, slope: Tensor) -> None:
        """Move the logits along the gradient with momentum."""
        self.momentum = _MOMENTUM * self.momentum + slope
        peak = rows(self.momentum.flatten(1).abs().amax(1), slope)
        self.logits = self.logits + self.attack.step_size * self.momentum / peak.clamp_min(_TINY)

    def _take(self, at: Tensor) -> None:
        self.x, self.y, self.logits = self.x[at], self.y[at], self.logits[at]
        self.best, self.height = self.best[at], self.height[at]
        self.momentum = self.momentum[at]
        self.choices, self.streams = self.choices.take(at), self.streams.take(at)


def _gumbel(streams: SampleStreams, like: Tensor) -> Tensor:
    """Return standard Gumbel noise."""
    u = streams.uniform(like.shape, device=like.device).double() + 2.0**-25
    return -torch.log(-torch.log(u)).to(like.dtype)
