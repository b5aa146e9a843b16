"""TRADES: cross-entropy on clean images plus a KL term that keeps predictions locally constant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeguard.attacks.gradients.base import Backprop
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.threat import Linf, Threat
from spikeguard.defences.piece import Measured, Piece, Step
from spikeguard.encoders.input_space import space_of
from spikeguard.rng import SampleStreams
from spikeguard.system.pixel_units import radius_problem

__all__ = ["TRADES", "climb", "divergence"]

_START = 0.001  # standard deviation of the start, in input units


@dataclass(frozen=True)
class TRADES(Piece):
    r"""Cross-entropy on clean images plus the divergence from a perturbed prediction.

    .. math::
        L = CE(f(x), y) + \beta\,KL\bigl(f(x) \,\|\, f(x')\bigr), \qquad
        x' \approx \arg\max_{\|x' - x\|_\infty \le \epsilon} KL\bigl(f(x) \,\|\, f(x')\bigr)

    with f the softmax of the logits, KL a sum over classes and a mean over the batch. The search
    does not use the label. It starts at x + 0.001 N(0, 1), because the gradient of the divergence
    is 0 at x, and takes signed steps, each projected into the ball and [0, 1]. If the start flips
    no spike, the logits of a spiking network equal those at x and the divergence stays flat.

    Where paper and code differ, this follows the code. Its divergence is KL; the paper uses the
    classification loss between f(x) and f(x'), which for the cross-entropy is the KL plus the
    entropy of f(x). The search runs in evaluation mode, like every attack here and in the published
    code; the paper does not say, and an early version of the code left it to the caller. Both
    passes are differentiated. f(x) is computed once per search, not once per step: for a noisy
    network that is one draw.

    Args:
        eps: Radius of the L-infinity ball, in input units, >= 0.
        steps: Gradient steps, >= 1.
        step_size: Length of one step, in input units, > 0.
        beta: Weight of the divergence, >= 0 (the paper's 1/lambda); 0 gives the same weights as
            plain training, bit for bit: nothing is perturbed.

    Raises:
        ValueError: If a number is out of range.

    Source: Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML
        2019 (arXiv:1901.08573), Section 4 and Algorithm 1; for CIFAR-10 it takes eps 0.031, ten
        steps of 0.007 and beta 1 or 6.
    """

    name: ClassVar[str] = "trades"
    needs_clean: ClassVar[bool] = True

    eps: float = 8 / 255
    steps: int = 10
    step_size: float = 2 / 255
    beta: float = 6.0

    @classmethod
    def example(cls) -> Self:
        """Return an instance for small images, for the contract tests."""
        return cls(eps=0.1, steps=2)

    @classmethod
    def off(cls) -> Self:
        """Return an instance without effect, for the contract tests: weight 0, not radius 0."""
        return cls(beta=0.0)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"{name}: eps is a radius >= 0 in input units, got {self.eps:g}.")
        if radius_problem("linf", self.eps):
            raise ValueError(f"{name}: {radius_problem('linf', self.eps)}")
        if self.steps < 1:
            raise ValueError(f"{name}: steps must be >= 1, got {self.steps}.")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"{name}: step_size must be positive, got {self.step_size:g}.")
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise ValueError(f"{name}: beta is a weight >= 0, got {self.beta:g}.")

    @property
    def idle(self) -> bool:
        """Whether beta is 0: then no second pass is run, which would change batch statistics."""
        return self.beta == 0

    @property
    def clean_share(self) -> float:
        """Share of the cross-entropy on the clean batch: all of it."""
        return 1.0

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images of largest divergence; the model is unchanged."""
        threat = Linf(self.eps, space_of(model).high)
        with crafting(model, x, y, generator) as streams:
            clean = classify(model, x, y)

            def loss(logits: Tensor, y: Tensor) -> Tensor:
                return divergence(clean, logits)

            return climb(model, x, y, loss, threat, streams, self.steps, self.step_size)

    def term(self, step: Step) -> Tensor:
        """Return beta times the mean divergence between the two passes."""
        return self.measured(step).loss

    def measured(self, step: Step) -> Measured:
        """Return beta and the mean divergence between the two passes."""
        clean, perturbed = step.both
        return Measured(self.beta, divergence(clean.logits, perturbed.logits).mean())


def climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    threat: Threat,
    streams: SampleStreams,
    steps: int,
    step_size: float,
) -> Tensor:
    """Return images [B, ...] of large loss near x: sign steps from a Gaussian start.

    The start is near x, because the divergence from x has no gradient at x itself.

    Args:
        model: The network, inside ``crafting``.
        x: Images [B, ...].
        y: Labels [B].
        loss: Per-sample loss to maximise.
        threat: The set to stay in.
        streams: Random streams of the samples, for the start.
        steps: Number of steps.
        step_size: Length of a step in pixel units.
    """
    noise = streams.normal(x.shape, device=x.device).to(x.dtype)
    x_adv = threat.project(x + _START * noise, x)
    for _ in range(steps):
        _, grad = Backprop()(model, x_adv, y, loss)
        x_adv = threat.project(x_adv + step_size * threat.steepest(grad), x)
    return x_adv


def divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Return KL(softmax(clean) || softmax(perturbed)) of each sample [B], from logits [B, K]."""
    p, q = (functional.log_softmax(logits.float(), 1) for logits in (clean, perturbed))
    return (p.exp() * (p - q)).sum(1)
