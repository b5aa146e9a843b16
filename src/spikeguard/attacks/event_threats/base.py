"""What the threat sets on event grids share: the checks, the steepest step and the ranking."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeguard.attacks.threat import Threat, ThreatViolation

__all__ = ["Budgeted", "EventThreat", "binary_violation", "largest", "require_budget"]

_STRIDE = 2.0**20  # longest entry of a steepest step: far beyond the grid, exact in float32


def require_budget(owner: object, name: str, value: object, least: int = 0) -> None:
    """Reject a budget that is no whole number >= ``least``."""
    if type(value) is not int or value < least:
        raise ValueError(
            f"{type(owner).__name__}: {name} is a whole number >= {least}, got {value!r}."
        )


class EventThreat(ABC):
    """Base of the threat sets on events: a grid of whole numbers with a time axis."""

    events = True

    def contains(self: Threat, x_adv: Tensor, x: Tensor) -> bool:
        """Whether every sample is in the set."""
        return _breach(self, x_adv, x) is None

    def check(self: Threat, x_adv: Tensor, x: Tensor) -> None:
        """Raise ThreatViolation, which says what is violated, unless all samples are in the set."""
        wrong = _breach(self, x_adv, x)
        if wrong is not None:
            raise ThreatViolation(f"{self}: the adversarial batch {wrong}; it is not scored.")

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the gradient, scaled so that its largest entry is 2^20; zero where it is zero.

        A point moved along it and projected is the point of the set with the highest linearised
        loss, so one step of any length from 2^-10 on is enough.
        """
        peak = grad.flatten(1).abs().amax(1).view(-1, *[1] * (grad.ndim - 1))
        return grad / torch.where(peak > 0, peak, 1) * _STRIDE

    @abstractmethod
    def violation(self, x_adv: Tensor, x: Tensor) -> str | None:
        """Describe what a batch of whole numbers violates; None if nothing."""


@dataclass(frozen=True)
class Budgeted(EventThreat):
    """A threat set whose one limit is ``budget``, the largest total cost of a sample, >= 0."""

    budget: int

    def __post_init__(self) -> None:
        require_budget(self, "budget", self.budget)

    @property
    def eps(self) -> float:
        """The budget."""
        return float(self.budget)

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the total cost of the changes [B]."""

    def violation(self, x_adv: Tensor, x: Tensor) -> str | None:
        """Describe more changes than the budget; None if there are not."""
        far = self.distance(x_adv, x)
        if bool((far > self.budget).any()):
            row, most = int(far.argmax()), int(far.max())
            return f"makes {most} changes in sample {row}, more than the budget {self.budget}"
        return None


def binary_violation(x_adv: Tensor) -> str | None:
    """Describe a value above 1; None if there is none."""
    if float(x_adv.max()) > 1:
        row = int(x_adv.flatten(1).amax(1).argmax())
        return f"holds the invalid value {float(x_adv.max()):g} in sample {row}: the grid is binary"
    return None


def _breach(threat: Threat, x_adv: Tensor, x: Tensor) -> str | None:
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        return f"has shape {list(x_adv.shape)} and {x_adv.dtype}, not {list(x.shape)} and {x.dtype}"
    if not x.numel():
        return None
    whole = (x_adv >= 0) & (x_adv == x_adv.round()) & torch.isfinite(x_adv)
    if not bool(whole.all()):
        rows = (~whole).flatten(1).any(1).nonzero()[:, 0]
        value = float(x_adv[~whole].flatten()[0])
        return (
            f"holds the invalid value {value:.6g} in sample {int(rows[0])}: events are whole "
            "numbers >= 0"
        )
    found: str | None = threat.violation(x_adv, x)  # type: ignore[attr-defined]
    return found


def largest(gain: Tensor, count: Tensor | int) -> Tensor:
    """Return a mask of the largest positive gains of each sample, at most ``count`` of them.

    Ties go to the first entry.

    Args:
        gain: Gains [B, n].
        count: Number per sample, an integer or [B].
    """
    order = gain.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(gain.shape[1], device=gain.device).expand_as(order))
    limit = count if isinstance(count, int) else count[:, None]
    return (ranks < limit) & (gain > 0)
