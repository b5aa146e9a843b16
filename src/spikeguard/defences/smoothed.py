"""Smoothed training: learn under the noise of a smoothed classifier, and attack that classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import EoT
from spikeguard.attacks.searches.pgd import PGD
from spikeguard.attacks.threat import THREATS
from spikeguard.defences.piece import Piece
from spikeguard.encoders.input_space import space_of
from spikeguard.models.noisy_input import NoisyInput
from spikeguard.rng import normal
from spikeguard.system.pixel_units import radius_problem

__all__ = ["Smoothed"]


@dataclass(frozen=True)
class Smoothed(Piece):
    r"""Train the base network of a smoothed classifier: noise on adversarial images.

    .. math::
        \min_\theta\; E_\xi\; L(f_\theta(x' + \sigma\,\xi), y), \qquad
        x' \approx \arg\max_{\|x' - x\| \le \epsilon}
            \tfrac1K \textstyle\sum_k L(f_\theta(x' + \sigma\,\xi_k), y), \qquad \xi \sim N(0, 1)

    With a rate-coded network (``encoder: poisson``) the coding is the noise, and sigma is 0: the
    search then averages over K codings, each differentiated straight through. With eps 0 it is
    training under noise (Cohen et al.). The noisy image is not clipped.

    Args:
        sigma: Standard deviation of the noise on the input, in input units, >= 0.
        eps: Radius of the threat set of the search, in input units, >= 0; 0 searches nothing.
            With ``sigma`` 0 too it is plain training.
        steps: Gradient steps of PGD, >= 1.
        step_size: Length of one step, in input units, > 0; None is 2.5 eps / steps.
        norm: "linf", "l2" or "l1".
        draws: Noise draws K that every gradient averages over, >= 1.

    Raises:
        ValueError: If a number is out of range or the norm unknown.

    Source: Cohen et al., "Certified adversarial robustness via randomized smoothing", ICML 2019
        (arXiv:1902.02918) (noise); Salman et al., "Provably robust deep learning via
        adversarially trained smoothed classifiers", NeurIPS 2019 (arXiv:1906.04584) (the search);
        Mukhoty et al., "Certified adversarial robustness for rate encoded spiking neural networks",
        ICLR 2024, and its public training code (rate coding: PGD of 4 steps of 2/255 at 8/255,
        K = 1, without a random start).
    """

    name: ClassVar[str] = "smoothed"

    sigma: float = 0.25
    eps: float = 0.0
    steps: int = 4
    step_size: float | None = None
    norm: str = "linf"
    draws: int = 1

    @classmethod
    def example(cls) -> Self:
        """Return an instance with noise and a search for small images, for the contract tests."""
        return cls(sigma=0.1, eps=0.1, steps=2, draws=2)

    @classmethod
    def off(cls) -> Self:
        """Return an instance without effect, for the contract tests: no noise and no search."""
        return cls(sigma=0.0, eps=0.0)

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and math.isfinite(self.sigma)):
            raise ValueError(f"Smoothed: sigma is a standard deviation >= 0, got {self.sigma:g}.")
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"Smoothed: eps is a radius >= 0 in input units, got {self.eps:g}.")
        if self.norm not in THREATS:
            raise ValueError(f"Smoothed: norm is one of {', '.join(THREATS)}; got {self.norm!r}.")
        if radius_problem(self.norm, self.eps):
            raise ValueError(f"Smoothed: {radius_problem(self.norm, self.eps)}")
        for what, value in (("steps", self.steps), ("draws", self.draws)):
            if value < 1:
                raise ValueError(f"Smoothed: {what} must be >= 1, got {value}.")
        if self.step_size is not None and not (
            self.step_size > 0 and math.isfinite(self.step_size)
        ):
            raise ValueError(f"Smoothed: step_size must be positive, got {self.step_size:g}.")

    @property
    def idle(self) -> bool:
        """Whether there is neither noise nor a search."""
        return self.sigma == 0 and self.eps == 0

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return noisy adversarial images, which can be outside [0, 1]; the model is unchanged."""
        if self.eps > 0:
            attack = PGD(
                THREATS[self.norm](self.eps, space_of(model).high),
                steps=self.steps,
                step_size=self.step_size,
                random_start=False,
                gradient=EoT(self.draws),
            )
            x = attack(NoisyInput(model, self.sigma), x, y, generator=generator)
        return x + self.sigma * normal(generator, x.shape, dim=0, device=x.device)
