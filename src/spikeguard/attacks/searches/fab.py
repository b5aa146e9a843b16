"""FAB: search for the smallest perturbation that fools the model, by linearised boundaries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.base import (
    BACKPROP,
    Gradient,
    draws_per_step,
    gradient_cost,
    start_search,
)
from spikeguard.attacks.losses import targeted_margin
from spikeguard.attacks.model_access import DEFAULT_DRAWS, crafting, is_stochastic
from spikeguard.attacks.searches.restarts import mean_logits, rank_name, ranked_class, rows
from spikeguard.attacks.searches.stepwise import State, Step
from spikeguard.attacks.threat import Threat, peak_of
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["FAB", "onto_plane"]

_NEAREST = 0.1  # largest weight of the step from x itself (alpha_max)
_OVERSHOOT = 1.05  # factor of both steps (eta)
_BACK = 0.9  # after a misclassified point, its distance to x is scaled by this (beta)


@dataclass(frozen=True)
class FAB:
    r"""Fast adaptive boundary attack, targeted: searches for the nearest misclassified point.

    .. math::
        x_{i+1} = (1 - \alpha)(x_i + 1.05\,d_1) + \alpha (x + 1.05\,d_2), \quad
        \alpha = \min\Bigl(\frac{\lVert d_1 \rVert}{\lVert d_1 \rVert + \lVert d_2 \rVert},
        0.1\Bigr)

    where d_1 and d_2 are the shortest vectors from x_i and from x, within the box, to the plane on
    which the linearised z_t - z_y is zero. After a misclassified point the search continues at
    x + 0.9 (x_{i+1} - x). Each target t is a separate search from x.

    There is no step size, and the search does not use eps. A plain call returns for each sample the
    nearest misclassified point over all targets if it is within eps. Otherwise it returns the
    projection of that point, which is usually classified correctly, or x if there is no such point.
    For an input that is misclassified already, the result is x. Step by step, a sample ends at its
    first misclassified point within eps.

    If the gradient is zero there is no plane, and the sample does not move.

    For a stochastic model a point counts as misclassified if its mean logits over ten fresh draws
    are wrong; the planes are those of the mean over the draws of ``EoT``. The nearest of many such
    points may be misclassified by chance: score it on fresh draws, as ``evaluate`` does.

    Args:
        threat: ``Linf``, ``L2`` or ``L1``: the norm, and the radius within which a point counts.
        steps: Steps for each target, >= 1.
        targets: Number of target classes, >= 1: the highest-ranking wrong classes on the clean
            input, at most all of them.
        gradient: How z_t - z_y is differentiated.

    Raises:
        ValueError: If steps or targets is below 1, or the threat set has another norm.

    Source: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
        attack", ICML 2020 (arXiv:1907.02044); targeted as in arXiv:2003.01690.
    """

    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum", "moves_far"})

    threat: Threat
    steps: int = 100
    targets: int = 9
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"FAB: steps must be >= 1, got {self.steps}.")
        if self.targets < 1:
            raise ValueError(f"FAB: targets counts classes, >= 1, got {self.targets}.")
        if self.threat.norm not in ("linf", "l2", "l1"):
            raise ValueError(
                f"FAB: defined for Linf, L2 and L1, got {self.threat.norm!r}; use one of these."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample, with forward passes per step and per target.

        One pass each without noise; for a gradient averaged over draws as many as are scored.
        """
        passes = FORWARD * (DEFAULT_DRAWS if draws_per_step(self.gradient) > 1 else 1)
        return self.targets * (self.steps * (gradient_cost(self.gradient) + passes) + passes)

    @property
    def rounds(self) -> int:
        """One, which runs through all targets."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state of the search, at x."""
        shortest = torch.full_like(y, torch.inf, dtype=torch.promote_types(x.dtype, torch.float32))
        return {
            "x_adv": x,
            "done": torch.zeros_like(y),
            "target": torch.zeros_like(y),
            "best": x,
            "shortest": shortest,
            "name": rank_name(x, streams),
        }

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample."""
        return self._step(model, x, y, state, draws=1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            draws = DEFAULT_DRAWS if is_stochastic(model) else 1
            x = x.detach()
            state = self.begin(x, y, streams, 0)
            while True:
                search = replace(self, gradient=start_search(self.gradient))
                for _ in range(self.steps):
                    made = search._step(model, x, y, state, draws)
                    state = made.state
                if bool(made.over.all()):
                    return made.result

    def _step(self, model: nn.Module, x: Tensor, y: Tensor, state: State, draws: int) -> Step:
        state = self._set_target(model, x, y, state, draws)
        here, done = state["x_adv"], state["done"] + 1
        value, grad = self.gradient(model, here, y, partial(_toward, target=state["target"]))
        there = self._closer(x, here, value, grad)
        logits = mean_logits(model, there, y, draws)
        wrong = logits.argmax(1) != y
        state = _record(state, wrong, there, self.threat.distance(there, x))
        there = torch.where(rows(wrong, x), x + _BACK * (there - x), there)

        ends = done % self.steps == 0
        over = ends & (done == self.steps * min(self.targets, logits.shape[1] - 1))
        inside = state["shortest"] <= self.threat.eps
        result = torch.where(rows(inside, x), state["best"], self.threat.project(state["best"], x))
        moved = {**state, "x_adv": torch.where(rows(ends, x), x, there), "done": done}
        return Step(moved, result, inside, result, over)

    def _set_target(
        self, model: nn.Module, x: Tensor, y: Tensor, state: State, draws: int
    ) -> State:
        """Set the next target of samples at x; a misclassified x is recorded at distance 0."""
        new = (state["done"] % self.steps == 0).nonzero()[:, 0]
        if not len(new):
            return state
        rank, name = state["done"][new] // self.steps, state["name"][new]
        target, wrong = state["target"].clone(), torch.zeros_like(y, dtype=torch.bool)
        target[new], logits = ranked_class(model, x[new], y[new], rank, name, draws)
        wrong[new] = logits.argmax(1) != y[new]
        found = _record(state, wrong, x, torch.zeros_like(state["shortest"]))
        return {**found, "target": target}

    def _closer(self, x: Tensor, here: Tensor, value: Tensor, grad: Tensor) -> Tensor:
        """Return the next points: the weighted mean of the steps to the plane from here and x."""
        start, point, w = (part.flatten(1).double() for part in (x, here, grad))
        gap = value.double()
        peak = peak_of(self.threat)
        d1 = onto_plane(point, w, gap, self.threat.norm, peak)
        d2 = onto_plane(start, w, gap + (w * (start - point)).sum(1), self.threat.norm, peak)
        one, two = (self.threat.distance(d, torch.zeros_like(d)) for d in (d1, d2))
        tiny = torch.finfo(torch.float64).tiny
        alpha = (one / (one + two).clamp_min(tiny)).clamp_max(_NEAREST)[:, None]
        there = (1 - alpha) * (point + _OVERSHOOT * d1) + alpha * (start + _OVERSHOOT * d2)
        flat = (w == 0).all(1, keepdim=True)
        there = torch.where(flat, point, there.clamp(0, peak))
        return there.to(x.dtype).view_as(x)


def onto_plane(point: Tensor, w: Tensor, gap: Tensor, norm: str, peak: float = 1.0) -> Tensor:
    r"""Return the shortest d with <w, d> = -gap and point + d in [0, peak], exactly.

    Every coordinate moves in the direction that reduces the gap, by

    * Linf: :math:`\min(\lambda, r_j)`, where r_j is the distance to the box,
    * L2: :math:`\min(\lambda |w_j|, r_j)`,
    * L1: r_j in the order of decreasing abs(w_j), and the last coordinate by the remainder.

    The reduction of the gap is piecewise linear in lambda. Its breakpoints are sorted, so the
    smallest sufficient lambda is exact. If the plane does not intersect the box, all coordinates
    move to the edge of the box.

    Args:
        point: Points in the box [B, D].
        w: Normals [B, D].
        gap: Required decrease of <w, .> [B].
        norm: "linf", "l2" or "l1".
        peak: Upper end of the box; may be infinite.

    Source: Croce and Hein, 2020 (arXiv:1907.02044), Section 2.
    """
    way = -gap.sign()[:, None] * w.sign()
    size, need = w.abs(), gap.abs()[:, None]
    room = torch.where(way > 0, peak - point, point) * (way != 0)
    # never further than the coordinate alone would have to move: finite also without an upper end
    room = torch.minimum(room, need / size.clamp_min(torch.finfo(size.dtype).tiny))
    if norm == "l1":
        order = size.argsort(dim=1, descending=True, stable=True)
        worth = (size * room).gather(1, order)
        before = worth.cumsum(1) - worth
        share = torch.minimum((need - before).clamp(min=0), worth)
        moved = torch.zeros_like(room).scatter(1, order, share) / torch.where(size > 0, size, 1)
        return way * moved
    pace = size if norm == "l2" else (size > 0).to(size.dtype)
    end = torch.where(pace > 0, room / torch.where(pace > 0, pace, 1), 0)  # lambda at the box
    ends, order = end.sort(1)
    slope = (size * pace).gather(1, order)
    before = (slope * ends).cumsum(1) - slope * ends  # reduction by the coordinates at the box
    left = slope.flip(1).cumsum(1).flip(1)  # total slope of the other coordinates
    reached = before + left * ends
    first = (reached < need).sum(1, keepdim=True)
    last = first.clamp(max=ends.shape[1] - 1)
    slopes = left.gather(1, last)
    exact = (need - before.gather(1, last)) / torch.where(slopes > 0, slopes, 1)
    lam = torch.where(first > last, ends.gather(1, last), exact)
    return way * torch.minimum(lam * pace, room)


def _toward(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    return targeted_margin(logits, y, target)


def _record(state: State, wrong: Tensor, point: Tensor, distance: Tensor) -> State:
    """Record a misclassified point if it is the nearest so far."""
    nearer = wrong & (distance < state["shortest"])
    return {
        **state,
        "best": torch.where(rows(nearer, point), point, state["best"]),
        "shortest": torch.where(nearer, distance.to(state["shortest"]), state["shortest"]),
    }
