"""Recurrence of a foreign layer: its potentials, computed from input currents and spikes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeguard.kernels.reference import Reset

__all__ = ["Dynamics", "integrated", "one_number"]


@dataclass(frozen=True)
class Dynamics:
    """The recurrence of a layer with the reset potential as zero.

    Attributes:
        v_th: Threshold above the reset potential.
        reset: "hard" or "soft".
        detach_reset: Whether no gradient flows through the reset.
        potentials: ``(current, spikes), each [T, B, *N] -> v [T, B, *N]``: potentials before reset.
            The reset follows the given spikes.
        decay: Leak factor of the membrane, a number or shaped [1, 1, *N].
        gain: Increase of the potential per step and unit of a steady current; shaped as ``decay``.
    """

    v_th: float
    reset: Reset
    detach_reset: bool
    potentials: Callable[[Tensor, Tensor], Tensor]
    decay: float | Tensor
    gain: float | Tensor = 1.0


def one_number(what: str, value: object) -> float:
    """Return a parameter that is one number for the whole layer.

    Raises:
        ValueError: If it differs between neurons.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{what} differs between neurons; its potentials are not recorded.")
        return float(value.detach())
    return float(value)  # type: ignore[arg-type]


def integrated(
    current: Tensor,
    spikes: Tensor,
    charge: Callable[[Tensor, Tensor], Tensor],
    v_th: float,
    reset: Reset,
) -> Tensor:
    """Return v [T, ...] for ``v = charge(u, current[t])``, u reset by the given spikes."""
    u = torch.zeros_like(current[0])
    potentials = []
    for drive, s in zip(current, spikes, strict=True):
        v = charge(u, drive)
        u = v * (1 - s) if reset == "hard" else v - v_th * s
        potentials.append(v)
    return torch.stack(potentials)
