r"""Threat sets: the inputs an adversary may use, all inside the box [0, 1], or [0, peak].

The box of pixels is [0, 1]. For event frames with real values, as papers attack them, ``peak`` is
the largest value of a frame. A threat set defines the projection, the random start and the
direction of steepest ascent. It is enforced: ``check`` runs on every adversarial batch before it is
scored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from spikeguard.rng import SampleStreams
from spikeguard.system.pixel_units import radius_problem

__all__ = [
    "THREATS",
    "L1",
    "L2",
    "Linf",
    "Threat",
    "ThreatViolation",
    "peak_of",
    "require_ball_in_box",
]

_RELATIVE = 1e-6  # tolerance as a fraction of eps; the resolution of the pixels is added to it


class ThreatViolation(ValueError):
    """An adversarial batch is outside its threat set, so its score would be meaningless."""


class Threat(Protocol):
    """The set of inputs an adversary may turn ``x`` into."""

    norm: str

    @property
    def eps(self) -> float:
        """Radius of the ball, in pixel units."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Move ``x_adv`` into the ball around ``x`` and the box."""

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Draw a uniform start from the ball, clipped to the box."""

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the unit step of steepest ascent; zero for a sample whose gradient is zero."""

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the norm of each sample's perturbation [B]."""

    def contains(self, x_adv: Tensor, x: Tensor) -> bool:
        """Whether every sample is in the set."""

    def check(self, x_adv: Tensor, x: Tensor) -> None:
        """Raise ThreatViolation unless every sample is in the set."""


def peak_of(threat: Threat) -> float:
    """Return the upper end of a threat set's box: 1 unless it has a ``peak``."""
    return float(getattr(threat, "peak", 1.0))


def _require_eps(owner: Threat, eps: float, peak: float) -> None:
    name = type(owner).__name__
    if not (isinstance(eps, int | float) and math.isfinite(eps) and eps >= 0):
        raise ValueError(f"{name}: eps is a radius in pixels of [0, 1], >= 0, got {eps!r}.")
    if not (isinstance(peak, int | float) and peak > 0):
        raise ValueError(f"{name}: peak is the largest value of an input, > 0, got {peak!r}.")
    problem = _radius_problem(owner, None)
    if problem:
        raise ValueError(f"{name}: {problem}")


def _radius_problem(threat: Threat, pixels: int | None) -> str:
    """Return why a ball is larger than its box; empty if it is not."""
    peak = peak_of(threat)
    problem = radius_problem(threat.norm, threat.eps / peak, pixels)
    if problem and peak != 1:
        return f"eps {threat.eps:g} reaches every input in [0, {peak:g}]; use a smaller radius."
    return problem


def require_ball_in_box(threat: Threat, x: Tensor) -> None:
    """Reject a ball that is larger than the box of all images [B, ...].

    Raises:
        ValueError: If every image is inside the ball with room to spare, or ``x`` is outside the
            box.
    """
    problem = _radius_problem(threat, x[0].numel())
    if problem:
        raise ValueError(f"{threat}: {problem}")
    if isinstance(threat, _Ball) and x.numel() and float(x.max()) > peak_of(threat):
        raise ValueError(f"{threat}: {_above(threat, x)}")


def _breach(threat: Threat, x_adv: Tensor, x: Tensor) -> str | None:
    """Describe why a batch is outside the set; None if it is inside."""
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        return f"has shape {list(x_adv.shape)} and {x_adv.dtype}, not {list(x.shape)} and {x.dtype}"
    if not x.numel():
        return None
    if not bool(torch.isfinite(x_adv).all()):
        rows = int((~torch.isfinite(x_adv)).flatten(1).any(1).sum())
        return f"holds NaN or infinity in {rows} of {len(x)} samples"
    low, high, peak = float(x_adv.min()), float(x_adv.max()), peak_of(threat)
    if low < 0 or high > peak:
        return f"leaves the box [0, {peak:g}]: pixels from {low:.6g} to {high:.6g}"
    far = threat.distance(x_adv, x)
    if bool((far > threat.eps * (1 + _RELATIVE) + _resolution(threat, x)).any()):
        if float(x.max()) > peak:
            return f"cannot be judged: {_above(threat, x)}"
        return (
            f"leaves the ball in sample {int(far.argmax())}: distance {float(far.max()):.7g}, "
            f"eps {threat.eps:.7g}"
        )
    return None


def _above(threat: Threat, x: Tensor) -> str:
    return (
        f"the data go up to {float(x.max()):g}, the box is [0, {peak_of(threat):g}]; event counts "
        "need a larger peak or a threat on events."
    )


def _resolution(threat: Threat, x: Tensor) -> float:
    """Return the largest rounding error of x + delta: pixels up to 1 have steps of finfo.eps.

    Those of larger values are larger in proportion.
    """
    largest = 1.0 if peak_of(threat) <= 1 else max(1.0, float(x.max()))
    pixels = {"linf": 1.0, "l2": x[0].numel() ** 0.5}.get(threat.norm, float(x[0].numel()))
    return float(torch.finfo(x.dtype).eps * pixels * largest)


class _Ball:
    """The membership checks shared by all balls."""

    added_later: ClassVar[tuple[str, ...]] = ("peak",)

    def __repr__(self: Threat) -> str:
        peak = "" if peak_of(self) == 1 else f", peak={peak_of(self):g}"
        return f"{type(self).__name__}(eps={self.eps!r}{peak})"

    def contains(self: Threat, x_adv: Tensor, x: Tensor) -> bool:
        """Whether every sample is in the set."""
        return _breach(self, x_adv, x) is None

    def check(self: Threat, x_adv: Tensor, x: Tensor) -> None:
        """Raise ThreatViolation unless every sample is in the set."""
        wrong = _breach(self, x_adv, x)
        if wrong is not None:
            raise ThreatViolation(
                f"{self}: the adversarial batch {wrong.rstrip('.')}; it is not scored."
            )


@dataclass(frozen=True, repr=False)
class Linf(_Ball):
    """Every pixel may change by at most eps, inside [0, 1].

    Args:
        eps: Radius in pixel units, in [0, 1], for example 8/255.
        peak: Largest value of an input; above 1 only for event frames, ``math.inf`` for counts.

    Raises:
        ValueError: If eps is not a number in [0, peak].
    """

    eps: float
    peak: float = 1.0
    norm = "linf"

    def __post_init__(self) -> None:
        _require_eps(self, self.eps, self.peak)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Clip each pixel to [x - eps, x + eps] and [0, 1]."""
        return torch.minimum(torch.maximum(x_adv, x - self.eps), x + self.eps).clamp(0, self.peak)

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


@dataclass(frozen=True, repr=False)
class L2(_Ball):
    """The perturbation's Euclidean length is at most eps, inside [0, 1].

    Args:
        eps: Radius, >= 0, for example 0.5.
        peak: Largest value of an input; above 1 only for event frames, ``math.inf`` for counts.

    Raises:
        ValueError: If eps is negative or not finite.
    """

    eps: float
    peak: float = 1.0
    norm = "l2"

    def __post_init__(self) -> None:
        _require_eps(self, self.eps, self.peak)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Shrink to the ball, then clip to the box; the result is in both.

        Clipping never lengthens the perturbation. Where it shortens it, the result is a point of
        the intersection but not always the nearest one.
        """
        delta = x_adv - x
        length = _rows(delta.flatten(1).norm(dim=1), delta)
        factor = (self.eps / length.clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1)
        return (x + delta * factor).clamp(0, self.peak)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Draw uniformly from the ball: a Gaussian direction, radius eps U^(1/d)."""
        direction = streams.normal(x.shape, device=x.device).to(x.dtype)
        u = streams.uniform((len(x), 1), device=x.device).to(x.dtype)[:, 0]
        radius = self.eps * u ** (1 / x[0].numel())
        return self.project(x + self.steepest(direction) * _rows(radius, x), x)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return grad / ||grad||."""
        peak = _rows(grad.flatten(1).abs().amax(1), grad)
        scaled = grad / torch.where(peak > 0, peak, 1)  # avoids under- and overflow of the squares
        unit: Tensor = scaled / _rows(scaled.flatten(1).norm(dim=1), grad).clamp_min(1)
        return unit

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the length of the perturbation [B]."""
        length: Tensor = (_precise(x_adv) - _precise(x)).flatten(1).norm(dim=1)
        return length


@dataclass(frozen=True, repr=False)
class L1(_Ball):
    """The absolute changes of all pixels sum to at most eps, inside [0, 1].

    Args:
        eps: Radius, >= 0. For example, 12 allows twelve pixels to turn from black to white.
        peak: Largest value of an input; above 1 only for event frames, ``math.inf`` for counts.

    Raises:
        ValueError: If eps is negative or not finite.
    """

    eps: float
    peak: float = 1.0
    norm = "l1"

    def __post_init__(self) -> None:
        _require_eps(self, self.eps, self.peak)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        r"""Return the nearest point of the intersection of ball and box.

        Each pixel's change is :math:`\min(\max(|\delta_i| - \lambda, 0), c_i)` with the sign of
        delta. c_i is the distance to the box on that side, and lambda is the smallest number >= 0
        for which the changes sum to at most eps. The sum is piecewise linear in lambda. Its
        breakpoints are sorted, so lambda is exact.

        Source: Croce and Hein, "Mind the box: l1-APGD ...", ICML 2021 (arXiv:2103.01208).
        """
        delta = (x_adv.double() - x.double()).flatten(1)
        size = delta.abs()
        start = x.double().flatten(1)
        room = torch.where(delta > 0, self.peak - start, start)
        excess = _excess(size, room, self.eps)
        moved = (size - excess[:, None]).clamp_min(0).minimum(room)
        length = moved.sum(1, keepdim=True)
        moved *= torch.where(length > self.eps, self.eps / length, 1)  # rounding errors, and eps 0
        return (start + moved * delta.sign()).view_as(x).to(x.dtype).clamp(0, self.peak)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Draw uniformly from the ball: Laplace noise over its L1 norm plus an exponential."""
        u = 2 * streams.uniform(x.shape, device=x.device).double() - 1
        size = -torch.log1p(-u.abs().clamp_max(1 - 2**-25))
        more = -torch.log1p(-streams.uniform((len(x), 1), device=x.device).double())
        length = (size.flatten(1).sum(1) + more[:, 0]).clamp_min(torch.finfo(x.dtype).tiny)
        delta = self.eps * size * u.sign() / _rows(length, x)
        return self.project((x + delta).to(x.dtype), x)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the sign of g in the pixel of largest |g|, and zero in all others."""
        flat = grad.flatten(1)
        where = flat.abs().argmax(1, keepdim=True)
        only = torch.zeros_like(flat).scatter(1, where, flat.gather(1, where).sign())
        return only.view_as(grad)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the sum of all changes [B]."""
        return (_precise(x_adv) - _precise(x)).abs().flatten(1).sum(1)


def _excess(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return the smallest lambda >= 0 with sum_i min(max(size_i - lambda, 0), room_i) <= eps [B].

    From lambda = 0 on, a pixel's term is constant until size - room, then falls with slope -1 to 0
    at lambda = size.
    """
    bends = torch.cat([(size - room).clamp_min(0), size], 1)
    turns = torch.cat([-torch.ones_like(size), torch.ones_like(size)], 1)
    bends, order = bends.sort(1)
    slope = turns.gather(1, order).cumsum(1)[:, :-1]  # between a breakpoint and the next
    falls = (slope * bends.diff(dim=1)).cumsum(1)
    sums = size.minimum(room).sum(1, keepdim=True) + torch.cat([falls[:, :1] * 0, falls], 1)
    over = sums > eps
    last = over.sum(1, keepdim=True).sub(1).clamp(0, slope.shape[1] - 1)  # last sum above eps
    steep = slope.gather(1, last).clamp_max(-1)
    excess = bends.gather(1, last) - (sums.gather(1, last) - eps) / steep
    return torch.where(over[:, :1], excess, 0)[:, 0]


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per sample so that it broadcasts against ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


THREATS: dict[str, type[Linf | L2 | L1]] = {"linf": Linf, "l2": L2, "l1": L1}
