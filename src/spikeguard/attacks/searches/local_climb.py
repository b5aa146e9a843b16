"""LocalClimb: a random walk downhill on the margin, a pixel or two at a time, without gradients."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.losses import margin
from spikeguard.attacks.model_access import classify, crafting, is_stochastic
from spikeguard.attacks.searches.restarts import rows
from spikeguard.attacks.threat import Threat, peak_of
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["Climbed", "LocalClimb"]

_LONGEST, _SHORTEST = 0.5, 0.05  # of a small change, as fractions of eps


class Climbed(NamedTuple):
    """The result of a climb.

    Attributes:
        points: For each sample the point that fools the model, or that of lowest margin [B, ...].
        fooled: Whether the point fools the model [B].
        margin: Logit of the true class minus the largest other one at the point [B]; minus infinity
            where the climb fooled the model.
        fooled_at: CPU time of the process, in seconds, when that happened [B], on the CPU; infinite
            where it did not.
    """

    points: Tensor
    fooled: Tensor
    margin: Tensor
    fooled_at: Tensor


@dataclass(frozen=True)
class LocalClimb:
    r"""Random local search on the margin, by queries only.

    In every iteration a sample gets 8 candidates. A candidate changes one or two random pixels
    (elements of the input) of the current point: by turns to a value in the pixel's allowed
    interval, which is half the time one of its ends and else uniform, or by ``s eps`` with s
    log-uniform in [0.05, 0.5] and a random sign. It is projected into the threat set. The candidate
    of lowest margin replaces the current point if its margin is no higher. A candidate that fools
    the model ends the climb.

    The logits of a spiking network are piecewise constant, and near the end of a gradient search
    the gradient is often wrong. There a climb finds adversarial inputs that the gradients miss; it
    finds few from the clean input. At thousands of pixels it finds fewer.

    Args:
        threat: The set the adversary may use.
        queries: Forward passes per sample, >= 8; rounded down to a multiple of 8.

    Raises:
        ValueError: If queries is below 8; at a call, if the model draws noise.
    """

    threat: Threat
    queries: int = 1000

    candidates = 8

    def __post_init__(self) -> None:
        if self.queries < self.candidates:
            raise ValueError(
                f"LocalClimb: queries must be >= {self.candidates}, got {self.queries}."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        return self.queries * FORWARD

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return the result of a climb from ``x``, shaped like it; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            return self.climb(
                model, x, y, x, streams, batch_size=max(len(x), self.candidates)
            ).points

    def climb(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        start: Tensor,
        streams: SampleStreams,
        *,
        batch_size: int,
    ) -> Climbed:
        """Climb from given points.

        Args:
            model: The model, inside ``crafting``.
            x: Clean inputs [B, ...].
            y: Labels [B].
            start: Points of the threat set, shaped like ``x``.
            streams: The streams yielded by ``crafting``.
            batch_size: Candidates in one forward pass; results do not depend on it.
        """
        if is_stochastic(model):
            raise ValueError("LocalClimb: needs equal logits in every pass; the model draws noise.")
        here = start.detach().clone()
        lowest, fooled = _scores(model, here, y, batch_size)
        points, margins = here.clone(), lowest.clone()
        times = torch.full((len(x),), torch.inf, dtype=torch.float64)
        times[fooled.cpu()] = time.process_time()
        left = (~fooled).nonzero()[:, 0]
        x, y, here, lowest, streams = _taken(left, x, y, here, lowest, streams)
        for _ in range(self.queries // self.candidates):
            if not len(left):
                break
            tried = self._candidates(here, x, streams)
            flat = tried.flatten(0, 1)
            heights, wrong = _scores(model, flat, y.repeat_interleave(len(tried[0])), batch_size)
            heights, wrong = heights.view(tried.shape[:2]), wrong.view(tried.shape[:2])
            heights = torch.where(wrong, -torch.inf, heights)  # the margin of a tie may be zero
            best, at = heights.min(1)
            better = best <= lowest
            every = torch.arange(len(here), device=here.device)
            here = torch.where(rows(better, here), tried[every, at], here)
            lowest = torch.minimum(lowest, best)
            over = wrong.any(1)
            if bool(over.any()):
                points[left[over]], margins[left[over]] = here[over], lowest[over]
                fooled[left[over]] = True
                times[left[over].cpu()] = time.process_time()
                stays = (~over).nonzero()[:, 0]
                left = left[stays]
                x, y, here, lowest, streams = _taken(stays, x, y, here, lowest, streams)
        points[left], margins[left] = here, lowest
        return Climbed(points, fooled, margins, times)

    def _candidates(self, here: Tensor, x: Tensor, streams: SampleStreams) -> Tensor:
        """Return the candidates of one iteration [B, K, ...]."""
        n, count, size = len(x), self.candidates, x[0].numel()
        eps = self.threat.eps
        u = streams.uniform((n, count, 5), device=x.device).to(x.dtype)
        flat, clean = here.flatten(1), x.flatten(1)
        tried = flat[:, None].repeat(1, count, 1)
        low, high = (clean - eps).clamp_min(0), (clean + eps).clamp_max(peak_of(self.threat))
        ranks = torch.arange(count, device=x.device)
        leaps, pairs = ranks % 2 == 0, ranks % 3 == 2
        step = eps * _LONGEST * torch.exp(u[..., 2] * math.log(_SHORTEST / _LONGEST))
        for pixel, value in ((0, 3), (1, 4)):
            where = (u[..., pixel] * size).long().clamp_max(size - 1)
            least, most = low.gather(1, where), high.gather(1, where)
            now = tried.gather(2, where[..., None])[..., 0]
            leap = least + (2 * u[..., value] - 0.5).clamp(0, 1) * (most - least)
            small = now + step * torch.where(u[..., value] < 0.5, -1.0, 1.0).to(x.dtype)
            to = torch.where(leaps, leap, small)
            to = torch.where(pairs, to, now) if pixel else to
            tried.scatter_(2, where[..., None], to[..., None])
        tried = tried.view(n * count, *x.shape[1:])
        return self.threat.project(tried, x.repeat_interleave(count, 0)).view(
            n, count, *x.shape[1:]
        )


def _scores(model: nn.Module, points: Tensor, y: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return each point's margin, and whether the model misclassifies it."""
    parts = zip(torch.split(points, batch_size), torch.split(y, batch_size), strict=True)
    pairs = [(classify(model, part, labels), labels) for part, labels in parts]
    heights = [-margin(logits, labels) for logits, labels in pairs]
    return torch.cat(heights), torch.cat([z.argmax(1) != labels for z, labels in pairs])


def _taken(
    at: Tensor, x: Tensor, y: Tensor, here: Tensor, lowest: Tensor, streams: SampleStreams
) -> tuple[Tensor, Tensor, Tensor, Tensor, SampleStreams]:
    return x[at], y[at], here[at], lowest[at], streams.take(at)
