"""Perturbed inputs: an attack at another radius, and random perturbations of the same norm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spikeguard.attacks.base import Attack
from spikeguard.attacks.threat import Threat, peak_of
from spikeguard.rng import SampleStreams

__all__ = ["as_far_at_random", "at_radius", "norms", "radii"]

_LENGTHS = ("step_size", "alpha")  # settings of attacks that are lengths in input units
_BISECTIONS = 40


def radii(eps: float, points: int) -> list[float]:
    """Return 0 and ``points`` radii at equal distances, the last one eps."""
    return [eps * k / points for k in range(points + 1)]


def at_radius(attack: Attack, eps: float) -> Attack:
    """Return an attack with another radius; the lengths of its steps change in proportion.

    Args:
        attack: The attack; its own radius is above 0.
        eps: The radius.

    Raises:
        ValueError: If the radius of the attack cannot be changed.
    """
    settings: Any = attack
    threat: Any = attack.threat
    if threat.eps == eps:
        return attack
    lengths = {
        name: value * eps / threat.eps
        for name in _LENGTHS
        if (value := getattr(settings, name, None)) is not None
    }
    try:
        changed: Attack = replace(settings, threat=replace(threat, eps=eps), **lengths)
    except TypeError as error:
        raise ValueError(
            f"{type(attack).__name__} has a fixed radius; name an attack such as pgd7 or fgsm."
        ) from error
    return changed


def as_far_at_random(x: Tensor, x_adv: Tensor, threat: Threat, streams: SampleStreams) -> Tensor:
    """Return random inputs in the box at the same L2 distance from x as adversarial ones.

    The direction is a random sign for every pixel under Linf and a Gaussian one under L2 and L1.
    Pixels are clipped to the box of the threat set; the length along the direction is found by
    bisection. Where the box leaves too little room the distance is smaller.

    Args:
        x: Clean images [B, C, H, W].
        x_adv: Adversarial images, shaped like x.
        threat: The attack's threat set; its norm decides the direction.
        streams: Random streams of the images.
    """
    direction = streams.normal(x.shape, device=x.device).to(x.dtype)
    if threat.norm == "linf":
        direction = direction.sign()
    wanted, peak = norms(x_adv - x), peak_of(threat)
    low, high = torch.zeros_like(wanted), torch.full_like(wanted, 2.0**10)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        short = norms(_moved(x, direction, middle, peak) - x) < wanted
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.where(_rows(wanted, x) > 0, _moved(x, direction, high, peak), x)


def norms(change: Tensor) -> Tensor:
    """Return the L2 norm of every sample [B] of a change [B, ...], in float64."""
    found: Tensor = torch.linalg.vector_norm(change.double().flatten(1), dim=1)
    return found


def _moved(x: Tensor, direction: Tensor, length: Tensor, peak: float) -> Tensor:
    return (x + _rows(length, x).to(x.dtype) * direction).clamp(0, peak)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
