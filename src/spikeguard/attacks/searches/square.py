"""Square Attack: random search with square patches, without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.losses import Loss, margin
from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.searches.restarts import rows, until_fooled
from spikeguard.attacks.searches.square_patches import moved_length, signed_square, stripes, tiles
from spikeguard.attacks.searches.stepwise import State, Step, Watch, can_step
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["Square"]

_SHARE = 0.8  # fraction of the image covered by the first patches
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # iterations of 10 000 queries
_SCALE = 10_000


@dataclass(frozen=True)
class Square:
    r"""Square Attack: change a random square and keep the change unless the loss falls.

    Under Linf every pixel is at x - eps or x + eps, clipped to the box; the start is vertical
    stripes, and each query tries one sign per channel in a square. Under L2 the squares are pairs
    of pyramids of opposite sign, and each query moves the perturbation's length from one window to
    another. A sample stops at its first misclassified point.

    Ties are accepted (loss' >= loss), while the public code requires a smaller margin. The logits
    of a spiking network are piecewise constant and most changes leave them equal. A search that
    rejects ties moves only when a single patch flips a spike, and finds little.

    Position and signs are drawn per sample, so a result does not depend on the batch. A patch may
    be anywhere in the image, including the last row and column. Images need not be square: a patch
    is cut to the height and to the width. Inputs [B, F] are one row of F pixels, [B, T, C, H, W]
    images with T C channels.

    Against a stochastic model no sample stops early, because one misclassified draw is not enough:
    all queries are made and the point of highest loss is returned. That loss is biased upwards by
    its draw, so score the point on fresh draws, as ``evaluate`` does.

    Args:
        threat: ``Linf`` or ``L2``.
        queries: Forward passes per sample, >= 1, including the first point.
        loss: Per-sample loss ``(logits, y) -> [B]`` to maximise.
        rescale: Stretch or shrink the schedule of patch sizes, written for 10 000 queries, to
            ``queries``; without it, 5000 queries stop halfway through.

    Raises:
        ValueError: If queries is below 1, or the threat set is neither Linf nor L2.

    Source: Andriushchenko et al., "Square Attack", ECCV 2020 (arXiv:1912.00049).
    """

    exempt_from: ClassVar[frozenset[str]] = frozenset({"linear_optimum", "l1"})

    threat: Threat
    queries: int = 5000
    loss: Loss = margin
    rescale: bool = False

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"Square: queries must be >= 1, got {self.queries}.")
        if self.threat.norm not in ("linf", "l2"):
            raise ValueError(
                f"Square: defined for Linf and L2, got {self.threat.norm!r}; use Linf(eps) or "
                "L2(eps), or another attack."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample: one forward pass, a third of one, per query."""
        return self.queries * FORWARD

    @property
    def rounds(self) -> int:
        """One search per sample."""
        return 1

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the state at the first point, before its query."""
        start = stripes if self.threat.norm == "linf" else tiles
        change = self.threat.eps * start(_as_images(x), streams)
        precise = torch.promote_types(x.dtype, torch.float32)
        return {
            "x_adv": self.threat.project(x + change.reshape(x.shape), x),
            "height": torch.full((len(x),), -torch.inf, dtype=precise, device=x.device),
            "done": torch.zeros_like(y),
            "name": streams.bits((len(x),), dim=0, device=x.device),
        }

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Make one query for every sample."""
        best, done = state["x_adv"], state["done"]
        tried = torch.where(rows(done > 0, x), self._proposal(x, state), best)
        watch = Watch(self.loss)
        height = watch(classify(model, tried, y), y).to(state["height"].dtype)
        kept = height >= state["height"]
        moved = {
            **state,
            "x_adv": torch.where(rows(kept, x), tried, best),
            "height": torch.where(kept, height, state["height"]),
            "done": done + 1,
        }
        over = done + 1 == self.queries
        return Step(moved, tried, watch.outcome(y), moved["x_adv"], over, watch.margin(y))

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            if can_step(self, model):
                return until_fooled(self, model, x, y, streams)
            state = self.begin(x, y, streams, 0)
            for _ in range(self.queries):
                state = self.step(model, x, y, state).state
            return state["x_adv"]

    def _proposal(self, x: Tensor, state: State) -> Tensor:
        """Return the best points with one patch changed."""
        streams = SampleStreams(0, state["name"] + state["done"])
        share = self._share((state["done"] - 1).clamp(min=0))
        image, best = _as_images(x), _as_images(state["x_adv"])
        if self.threat.norm == "l2":
            tried = moved_length(image, best, share, self.threat.eps, streams)
            return self.threat.project(tried.view_as(x), x)
        window, signs = signed_square(image, share, streams)
        change = (self.threat.eps * signs).expand_as(image).reshape(x.shape)
        window = window[:, None].expand_as(image).reshape(x.shape)
        tried = torch.where(window, self.threat.project(x + change, x), state["x_adv"])
        same = (tried == state["x_adv"]).flatten(1).all(1)
        if bool(same.any()):  # the patch changes nothing: use the opposite signs
            other = torch.where(window, self.threat.project(x - change, x), state["x_adv"])
            tried = torch.where(rows(same, x), other, tried)
        return tried

    def _share(self, iteration: Tensor) -> Tensor:
        """Return the fraction of the image covered by a patch, by iteration from 0 [B]."""
        if self.rescale:
            iteration = iteration * _SCALE // self.queries
        limits = torch.tensor(_HALVED_AFTER, device=iteration.device)
        return _SHARE * 0.5 ** torch.bucketize(iteration, limits)


def _as_images(x: Tensor) -> Tensor:
    """View [B, ..., H, W] as [B, C, H, W]; without a height, the last axis is one row."""
    if x.ndim >= 4:
        return x.reshape(len(x), -1, *x.shape[-2:])
    return x.reshape(len(x), -1, 1, x.shape[-1])
