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

__all__ = ["THREATS", "L2", "Linf", "Threat", "ThreatViolation"]

_RELATIVE = 1e-6  # of eps: room for the rounding of x + delta - x
_ROUNDING = 1e-6  # of the pixels, which are of order 1 in float32


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
    if not bool(torch.isfinite(x_adv).all()):
        rows = int((~torch.isfinite(x_adv)).flatten(1).any(1).sum())
        return f"holds NaN or infinity in {rows} of {len(x)} samples"
    low, high = float(x_adv.min()), float(x_adv.max())
    if x_adv.numel() and (low < 0 or high > 1):
        return f"leaves the box [0, 1]: pixels from {low:.6g} to {high:.6g}"
    far = float(threat.distance(x_adv, x).max()) if len(x) else 0.0
    if far > threat.eps * (1 + _RELATIVE) + _ROUNDING:
        return f"leaves the ball: distance {far:.6g}, eps {threat.eps:.6g}"
    return None


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
        return (x_adv - x).abs().flatten(1).amax(1)


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
        """Shrink to the ball, then clip to the box, which can only shorten; inside both, not
        nearest.
        """
        delta = x_adv - x
        length = _rows(delta.flatten(1).norm(dim=1), delta)
        factor = (self.eps / length.clamp_min(1e-12)).clamp_max(1)
        return (x + delta * factor).clamp(0, 1)

    def sample(self, x: Tensor, streams: SampleStreams) -> Tensor:
        """Draw uniformly from the ball: a Gaussian direction, radius eps U^(1/d)."""
        direction = streams.normal(x.shape, device=x.device).to(x.dtype)
        u = streams.uniform((len(x), 1), device=x.device).to(x.dtype)[:, 0]
        radius = self.eps * u ** (1 / max(1, x[0].numel())) if len(x) else u
        return self.project(x + self.steepest(direction) * _rows(radius, x), x)

    def steepest(self, grad: Tensor) -> Tensor:
        """Return grad / ||grad||."""
        length = _rows(grad.flatten(1).norm(dim=1), grad)
        return torch.where(length > 0, grad / length.clamp_min(1e-30), torch.zeros_like(grad))

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the length of the perturbation [B]."""
        return (x_adv - x).flatten(1).norm(dim=1)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value a sample so that it multiplies ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


THREATS: dict[str, type[Linf | L2]] = {"linf": Linf, "l2": L2}
