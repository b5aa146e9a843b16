"""Checks and shapes of neuron parameters: leak factors, time constants, per-neuron values."""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["decay_from_tau", "per_neuron", "require_decay", "require_neurons"]


def decay_from_tau(tau: float) -> float:
    """Convert a membrane time constant tau > 1, in steps, to the leak factor 1 - 1/tau."""
    if not (tau > 1 and math.isfinite(tau)):
        raise ValueError(f"from_tau: tau is a time constant in steps, > 1, got {tau:g}.")
    return 1 - 1 / tau


def require_decay(owner: str, decay: float) -> float:
    """Check a leak factor in (0, 1]; the error for a value above 1 suggests a time constant."""
    if 0 < decay <= 1:
        return float(decay)
    hint = ""
    if decay > 1:
        hint = f" If it is a time constant, pass {1 - 1 / decay:.4g} (= 1 - 1/tau) or use from_tau."
    raise ValueError(f"{owner}: decay is a leak factor in (0, 1], got {decay:g}.{hint}")


def require_neurons(
    owner: nn.Module, values: Tensor | None, current: Tensor, *, steps: bool = False
) -> Tensor:
    """Check that values [*shape], or [T, *shape] with ``steps``, fit a current [T, B, *N].

    Raises:
        ValueError: If ``values`` is None, or shape is neither () nor N up to axes of length 1.
    """
    name, neurons = type(owner).__name__, tuple(current.shape[2:])
    if values is None:
        raise ValueError(
            f"{name}: has no shape yet; build it into a network, or pass shape={neurons}."
        )
    shape = tuple(values.shape[1:] if steps else values.shape)
    fits = len(shape) == len(neurons) and all(
        a in (1, b) for a, b in zip(shape, neurons, strict=True)
    )
    if shape and not fits:
        raise ValueError(
            f"{name}: built for neurons {shape}, got a current of {neurons}; build the network "
            "for inputs of this size."
        )
    return values


def per_neuron(values: Tensor, like: Tensor, *, steps: bool = False) -> Tensor:
    """Shape values [*shape], or [T, *shape] with ``steps``, to broadcast to ``like`` [T, B, *N]."""
    lead, shape = (len(values), values.shape[1:]) if steps else (1, values.shape)
    return values.view(lead, 1, *(shape or [1] * (like.ndim - 2)))
