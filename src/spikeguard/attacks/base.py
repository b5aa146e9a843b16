"""What all attacks share: the protocol, the losses, and the room an attack works in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeguard.attacks.threat import Threat
from spikeguard.neurons import under_attack
from spikeguard.rng import Randomness, SampleStreams, randomness

__all__ = [
    "LOSSES",
    "Attack",
    "AttackError",
    "Loss",
    "crafting",
    "cross_entropy",
    "frozen",
    "margin",
]

Loss = Callable[[Tensor, Tensor], Tensor]


class AttackError(RuntimeError):
    """The model cannot be attacked: its logits or gradients are not finite, or there is no
    gradient.
    """


class NoGradientError(AttackError):
    """No gradient reaches the input: the model detaches it."""


class Attack(Protocol):
    """A search for adversarial inputs: ``attack(model, x, y, generator=g) -> x_adv``."""

    @property
    def threat(self) -> Threat:
        """The set the adversary may use."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; the model is left as it was."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each sample [B]: -log softmax(z)_y."""
    return functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{i != y} z_i - z_y for each sample [B]; positive means fooled.

    Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017.
    """
    own = logits.gather(1, y[:, None])[:, 0]
    other = logits.masked_fill(functional.one_hot(y, logits.shape[1]).bool(), -torch.inf)
    return other.amax(1) - own


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; every module's own flag is restored, also after an
    exception.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no parameter gradients, neurons "under attack"; all restored one by one."""
    wanted = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        for weight, _ in wanted:
            weight.requires_grad_(False)
        with evaluating(model), under_attack(model):
            yield
    finally:
        for weight, flag in wanted:
            weight.requires_grad_(flag)


@contextmanager
def crafting(
    model: nn.Module, x: Tensor, y: Tensor, generator: Randomness | None
) -> Iterator[SampleStreams]:
    """The room an attack works in: input checked, model frozen, the model's noise bound.

    Args:
        model: The classifier under attack.
        x: Inputs [B, ...] in [0, 1], floating point.
        y: Labels [B], integers.
        generator: A generator, or SampleStreams; None is a fixed stream.

    Yields:
        The streams for the attack's own draws, one for each sample.

    Raises:
        ValueError: If x is no float in [0, 1], holds a NaN, or y does not fit.
    """
    require_inputs(x, y)
    streams = SampleStreams.of(generator, len(x))
    with frozen(model), randomness(model, streams.fork("noise")):
        yield streams.fork("search")


def require_inputs(x: Tensor, y: Tensor) -> None:
    """Refuse inputs outside [0, 1], NaN, and labels that do not fit, in one line."""
    if not x.is_floating_point():
        raise ValueError(
            f"attack: inputs must be floating point in [0, 1], got {x.dtype}; use x / 255."
        )
    if not bool(torch.isfinite(x).all()):
        raise ValueError("attack: inputs hold NaN or infinity; clean the data first.")
    if x.numel() and (float(x.min()) < 0 or float(x.max()) > 1):
        raise ValueError(
            f"attack: inputs must lie in [0, 1], got {float(x.min()):.4g} to {float(x.max()):.4g}; "
            "normalise inside the model, not before it."
        )
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise ValueError(
            f"attack: labels are {len(x)} integers, got {y.dtype} of shape {list(y.shape)}."
        )
