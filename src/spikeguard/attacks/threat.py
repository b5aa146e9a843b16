r"""Threat sets: what the adversary may do to an input. All live in the box [0, 1] of pixels.

A threat set owns projection, random starts and the direction of steepest ascent, and it is
enforced: ``check`` is called on every adversarial batch before it is scored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spikeguard.rng import SampleStreams

__all__ = ["THREATS", "L1", "L2", "Linf", "Threat", "ThreatViolation"]

_RELATIVE = 1e-6  # of eps: room for rounding, beside the resolution of the pixels themselves


class ThreatViolation(ValueError):
    """An adversarial batch that the threat set does not allow; its score would mean nothing."""


class Threat(Protocol):
    """The set of inputs an adversary may turn ``x`` into."""

    norm: str

    @property
    def eps(self) -> float:
        """Radius of the ball, in pixel units."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Bring ``x_adv`` back into the ball around ``x`` and the box."""

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Draw a uniform start from the ball, clipped to the box."""

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the unit step of steepest ascent; zero for a sample whose gradient is zero."""

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the norm of each sample's perturbation [B]."""

    def contains(self, x_adv: Tensor, x: Tensor) -> bool:
        """Whether every sample lies in the set."""

    def check(self, x_adv: Tensor, x: Tensor) -> None:
        """Raise ThreatViolation unless every sample lies in the set."""


def _require_eps(owner: object, eps: float) -> None:
    if not (isinstance(eps, int | float) and math.isfinite(eps) and eps >= 0):
        raise ValueError(
            f"{type(owner).__name__}: eps is a radius in pixels of [0, 1], >= 0, got {eps!r}."
        )


def _breach(threat: Threat, x_adv: Tensor, x: Tensor) -> str | None:
    """Say what is wrong with a batch, or None."""
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        return f"has shape {list(x_adv.shape)} and {x_adv.dtype}, not {list(x.shape)} and {x.dtype}"
    if not x.numel():
        return None
    if not bool(torch.isfinite(x_adv).all()):
        rows = int((~torch.isfinite(x_adv)).flatten(1).any(1).sum())
        return f"holds NaN or infinity in {rows} of {len(x)} samples"
    low, high = float(x_adv.min()), float(x_adv.max())
    if low < 0 or high > 1:
        return f"leaves the box [0, 1]: pixels from {low:.6g} to {high:.6g}"
    far = threat.distance(x_adv, x)
    if bool((far > threat.eps * (1 + _RELATIVE) + _resolution(threat, x)).any()):
        return (
            f"leaves the ball in sample {int(far.argmax())}: distance {float(far.max()):.7g}, "
            f"eps {threat.eps:.7g}"
        )
    return None


def _resolution(threat: Threat, x: Tensor) -> float:
    """Return how far x + delta can be rounded: pixels up to 1 have steps of finfo.eps."""
    pixels = {"linf": 1.0, "l2": x[0].numel() ** 0.5}.get(threat.norm, float(x[0].numel()))
    return float(torch.finfo(x.dtype).eps * pixels)


class _Ball:
    """The checks that all balls share."""

    def contains(self: Threat, x_adv: Tensor, x: Tensor) -> bool:
        """Whether every sample lies in the set."""
        return _breach(self, x_adv, x) is None

    def check(self: Threat, x_adv: Tensor, x: Tensor) -> None:
        """Raise ThreatViolation unless every sample lies in the set."""
        wrong = _breach(self, x_adv, x)
        if wrong is not None:
            raise ThreatViolation(f"{self}: the adversarial batch {wrong}; it is not scored.")


@dataclass(frozen=True)
class Linf(_Ball):
    """Every pixel may move by at most eps, inside [0, 1].

    Args:
        eps: Radius in pixel units of [0, 1], >= 0, for example 8/255.

    Raises:
        ValueError: If eps is negative or not finite.
    """

    eps: float
    norm = "linf"

    def __post_init__(self) -> None:
        _require_eps(self, self.eps)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Clip each pixel to [x - eps, x + eps] and [0, 1]."""
        return torch.minimum(torch.maximum(x_adv, x - self.eps), x + self.eps).clamp(0, 1)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Draw each pixel's change from U(-eps, eps)."""
        noise = streams.uniform(x.shape, device=x.device).to(x.dtype)
        return self.project(x + self.eps * (2 * noise - 1), x)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return sign(grad)."""
        return grad.sign()

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the largest change of a pixel [B]."""
        return (_precise(x_adv) - _precise(x)).abs().flatten(1).amax(1)


@dataclass(frozen=True)
class L2(_Ball):
    """The perturbation's Euclidean length is at most eps, inside [0, 1].

    Args:
        eps: Radius, >= 0, for example 0.5.

    Raises:
        ValueError: If eps is negative or not finite.
    """

    eps: float
    norm = "l2"

    def __post_init__(self) -> None:
        _require_eps(self, self.eps)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Shrink to the ball, then clip to the box; the result is in both.

        Clipping can only shorten. Where it does, a nearer point of the intersection may exist.
        """
        delta = x_adv - x
        length = _rows(delta.flatten(1).norm(dim=1), delta)
        factor = (self.eps / length.clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1)
        return (x + delta * factor).clamp(0, 1)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Draw uniformly from the ball: a Gaussian direction, radius eps U^(1/d)."""
        direction = streams.normal(x.shape, device=x.device).to(x.dtype)
        u = streams.uniform((len(x), 1), device=x.device).to(x.dtype)[:, 0]
        radius = self.eps * u ** (1 / x[0].numel())
        return self.project(x + self.steepest(direction) * _rows(radius, x), x)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return grad / ||grad||."""
        peak = _rows(grad.flatten(1).abs().amax(1), grad)
        scaled = grad / torch.where(peak > 0, peak, 1)  # so that no square under- or overflows
        unit: Tensor = scaled / _rows(scaled.flatten(1).norm(dim=1), grad).clamp_min(1)
        return unit

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the length of the perturbation [B]."""
        length: Tensor = (_precise(x_adv) - _precise(x)).flatten(1).norm(dim=1)
        return length


@dataclass(frozen=True)
class L1(_Ball):
    """All pixels together may move by at most eps, inside [0, 1]: few pixels, but far.

    Args:
        eps: Radius, >= 0, for example 12: as much as twelve pixels turned from black to white.

    Raises:
        ValueError: If eps is negative or not finite.
    """

    eps: float
    norm = "l1"

    def __post_init__(self) -> None:
        _require_eps(self, self.eps)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        r"""Return the nearest point of the intersection of ball and box.

        Each pixel's change is :math:`\min(\max(|\delta_i| - \lambda, 0), c_i)` with the sign of
        delta, c_i being the room that the box leaves on that side, and lambda the smallest number
        >= 0 for which their sum is at most eps. The sum falls with lambda along straight lines,
        whose ends are sorted; so lambda is exact.

        Source: Croce and Hein, "Mind the box: l1-APGD ...", ICML 2021 (arXiv:2103.01208).
        """
        delta = (x_adv.double() - x.double()).flatten(1)
        size = delta.abs()
        start = x.double().flatten(1)
        room = torch.where(delta > 0, 1 - start, start)
        excess = _excess(size, room, self.eps)
        moved = (size - excess[:, None]).clamp_min(0).minimum(room)
        length = moved.sum(1, keepdim=True)
        moved *= torch.where(length > self.eps, self.eps / length, 1)  # rounding; and eps 0
        return (start + moved * delta.sign()).view_as(x).to(x.dtype).clamp(0, 1)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Draw uniformly from the ball: Laplace numbers over their length and one more."""
        u = 2 * streams.uniform(x.shape, device=x.device).double() - 1
        size = -torch.log1p(-u.abs().clamp_max(1 - 2**-25))
        more = -torch.log1p(-streams.uniform((len(x), 1), device=x.device).double())
        length = (size.flatten(1).sum(1) + more[:, 0]).clamp_min(torch.finfo(x.dtype).tiny)
        delta = self.eps * size * u.sign() / _rows(length, x)
        return self.project((x + delta).to(x.dtype), x)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the sign of the largest |g|, in its own pixel alone."""
        flat = grad.flatten(1)
        where = flat.abs().argmax(1, keepdim=True)
        only = torch.zeros_like(flat).scatter(1, where, flat.gather(1, where).sign())
        return only.view_as(grad)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the sum of all changes [B]."""
        return (_precise(x_adv) - _precise(x)).abs().flatten(1).sum(1)


def _excess(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return the smallest lambda >= 0 with sum_i min(max(size_i - lambda, 0), room_i) <= eps [B].

    From lambda = 0 on, a pixel's term stands still until size - room, then falls with slope -1 to 0
    at lambda = size.
    """
    bends = torch.cat([(size - room).clamp_min(0), size], 1)
    turns = torch.cat([-torch.ones_like(size), torch.ones_like(size)], 1)
    bends, order = bends.sort(1)
    slope = turns.gather(1, order).cumsum(1)[:, :-1]  # between a bend and the next
    falls = (slope * bends.diff(dim=1)).cumsum(1)
    sums = size.minimum(room).sum(1, keepdim=True) + torch.cat([falls[:, :1] * 0, falls], 1)
    over = sums > eps
    last = over.sum(1, keepdim=True).sub(1).clamp(0, slope.shape[1] - 1)  # the last one too large
    steep = slope.gather(1, last).clamp_max(-1)
    excess = bends.gather(1, last) - (sums.gather(1, last) - eps) / steep
    return torch.where(over[:, :1], excess, 0)[:, 0]


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value a sample so that it multiplies ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


THREATS: dict[str, type[Linf | L2 | L1]] = {"linf": Linf, "l2": L2, "l1": L1}
