"""RTE, robust temporal self-ensemble: TRADES for the sub-network of every time step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.threat import Linf
from spikeguard.defences.piece import Measured, Step
from spikeguard.defences.trades import TRADES, climb, divergence
from spikeguard.encoders.input_space import space_of
from spikeguard.models.step_outputs import collect_steps, spiking_network

__all__ = ["RTE", "mean_divergence"]


@dataclass(frozen=True)
class RTE(TRADES):
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
        eps, steps, step_size, beta: As of TRADES.

    Raises:
        ValueError: If a number is out of range; before training, if the model is no spiking network
            of ``spikeguard.models``.

    Source: Wang et al., "Boosting the robustness-accuracy trade-off of SNNs by robust temporal
        self-ensemble", AAAI 2026 (arXiv:2508.11279): the aims, the sub-networks and the random
        step. The formula is a reading, see docs/defences/rte.md.
    """

    name: ClassVar[str] = "rte"
    needs_steps: ClassVar[bool] = True

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

            return climb(model, x, y, loss, threat, streams, self.steps, self.step_size)

    def measured(self, step: Step) -> Measured:
        """Return beta and the mean divergence over steps and images."""
        clean, perturbed = (each.steps for each in step.both)
        assert clean is not None and perturbed is not None
        return Measured(self.beta, mean_divergence(clean, perturbed))


def mean_divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Return the mean of KL(clean || perturbed) over steps and images, from logits [T, B, K]."""
    return divergence(clean.flatten(0, 1), perturbed.flatten(0, 1)).mean()
