"""RTE, robust temporal self-ensemble: TRADES for the sub-network of every time step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import Backprop
from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.threat import Linf
from spikeguard.defences.piece import Measured, Piece, Step
from spikeguard.defences.trades import START, divergence
from spikeguard.encoders.input_space import space_of
from spikeguard.models.step_outputs import collect_steps, spiking_network
from spikeguard.system.pixel_units import radius_problem

__all__ = ["RTE", "mean_divergence"]


@dataclass(frozen=True)
class RTE(Piece):
    r"""Keep the prediction of every time step under an attack on one step drawn at random.

    The output f_t(x) of step t is a sub-network, and the network is their mean, an ensemble with
    the weights 1/T:

    .. math::
        L = CE\Bigl(\tfrac1T \textstyle\sum_t f_t(x),\, y\Bigr)
            + \beta\,\tfrac1T \sum_t KL\bigl(f_t(x) \,\|\, f_t(x'_s)\bigr), \qquad
        x'_s \approx \arg\max_{\|x' - x\|_\infty \le \epsilon} KL\bigl(f_s(x) \,\|\, f_s(x')\bigr)

    with s uniform on the steps, one draw for each image and call. The summand t = s makes a
    sub-network robust; the others keep a perturbation of one step from transferring to the rest.
    In expectation over s all pairs of steps are in the loss, at the price of one search. At T = 1
    it is TRADES.

    The search is that of TRADES: without the label, in evaluation mode, from x + 0.001 N(0, 1), in
    signed steps. Both passes are differentiated.

    Args:
        beta: Weight of the divergence, >= 0; 0 gives the same weights as plain training, bit for
            bit: nothing is perturbed.
        eps: Radius of the L-infinity ball, in input units, >= 0.
        steps: Gradient steps, >= 1.
        step_size: Length of one step, in input units, > 0.

    Raises:
        ValueError: If a number is out of range; before training, if the model is no spiking network
            of ``spikeguard.models``.

    Source: Wang et al., "Boosting the robustness-accuracy trade-off of SNNs by robust temporal
        self-ensemble", AAAI 2026 (arXiv:2508.11279): the aims, the sub-networks and the random
        step. The formula is a reading, see docs/defences/rte.md.
    """

    name: ClassVar[str] = "rte"
    needs_clean: ClassVar[bool] = True
    needs_steps: ClassVar[bool] = True

    beta: float = 6.0
    eps: float = 8 / 255
    steps: int = 10
    step_size: float = 2 / 255

    @classmethod
    def example(cls) -> Self:
        """Return an instance for small images, for the contract tests."""
        return cls(eps=0.1, steps=2)

    def __post_init__(self) -> None:
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise ValueError(f"RTE: beta is a weight >= 0, got {self.beta:g}.")
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"RTE: eps is a radius >= 0 in input units, got {self.eps:g}.")
        if radius_problem("linf", self.eps):
            raise ValueError(f"RTE: {radius_problem('linf', self.eps)}")
        if self.steps < 1:
            raise ValueError(f"RTE: steps must be >= 1, got {self.steps}.")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"RTE: step_size must be positive, got {self.step_size:g}.")

    @property
    def idle(self) -> bool:
        """Whether beta is 0: then no second pass is run, which would change batch statistics."""
        return self.beta == 0

    @property
    def clean_share(self) -> float:
        """Share of the cross-entropy on the clean batch: all of it."""
        return 1.0

    def require(self, model: nn.Module, options: object) -> None:
        """Reject a model whose time steps are not known."""
        if spiking_network(model) is None:
            raise ValueError("rte: needs the output of every time step; train an SNN of a recipe.")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return images that change the prediction of one step each; the model is unchanged."""
        threat = Linf(self.eps, space_of(model).high)
        with crafting(model, x, y, generator) as streams, collect_steps(model) as seen:
            classify(model, x, y)
            every = seen.pop()
            drawn = streams.fork("step").uniform((len(x),), device=x.device)
            chosen = (drawn * len(every)).long(), torch.arange(len(x), device=x.device)
            clean = every[chosen]

            def loss(logits: Tensor, y: Tensor) -> Tensor:
                return divergence(clean, seen.pop()[chosen])

            noise = streams.normal(x.shape, device=x.device).to(x.dtype)
            x_adv = threat.project(x + START * noise, x)
            for _ in range(self.steps):
                _, grad = Backprop()(model, x_adv, y, loss)
                x_adv = threat.project(x_adv + self.step_size * threat.steepest(grad), x)
            return x_adv

    def term(self, step: Step) -> Tensor:
        """Return beta times the mean divergence over steps and images."""
        return self.measured(step).loss

    def measured(self, step: Step) -> Measured:
        """Return beta and the mean divergence over steps and images."""
        clean, perturbed = (each.steps for each in step.both)
        assert clean is not None and perturbed is not None
        return Measured(self.beta, mean_divergence(clean, perturbed))


def mean_divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Return the mean of KL(clean || perturbed) over steps and images, from logits [T, B, K]."""
    return divergence(clean.flatten(0, 1), perturbed.flatten(0, 1)).mean()
