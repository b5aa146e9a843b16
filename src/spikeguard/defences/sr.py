"""SR: sparsity regularisation, a penalty on the input gradient of the true-class score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from spikeguard.defences.piece import Measured, Piece, Step
from spikeguard.rng import randomness, stream, torch_seeded

__all__ = ["SR"]


@dataclass(frozen=True)
class SR(Piece):
    r"""Penalise the squared l1 norm of an input gradient, estimated by one finite difference.

    .. math::
        f(x) = \frac{e^{z_y}}{e^{z_y} + e^{z_c}} = \operatorname{sigmoid}(z_y - z_c), \quad
        c = \arg\max_{j \ne y} z_j, \quad d = \operatorname{sign} \nabla_x f(x), \\
        L = L_{CE} + \lambda \operatorname{mean}_b \Big[ \frac{f(x + h d) - f(x)}{h} \Big]^2

    To first order in h the bracket is ||grad f||_1. The gradient is the surrogate gradient. The
    strongest competitor c and the direction d are constants, so the penalty is differentiated in
    the weights by ordinary backpropagation through both passes. x + h d is not clamped to [0, 1].

    d is the sign of the gradient of z_y - z_c. It equals the sign of grad f wherever f is not
    saturated, and it does not vanish where f is.

    The pass at x is the training pass, on perturbed images if a piece perturbs. A network with
    noise runs once more at x, with the same draws as the pass at x + h d: with different draws the
    difference would measure the noise. All passes run in training mode, as in the public code, and
    each updates the batch normalisation statistics.

    Args:
        lamb: Weight of the penalty, >= 0; 0 is plain training, without additional passes.
        h: Step of the finite difference, in input units, > 0.

    Raises:
        ValueError: If a number is out of range; in training, if no gradient reaches the images.

    Source: Liu et al., "Enhancing adversarial robustness in SNNs with sparse gradients", ICML 2024,
        and its public code.
    """

    name: ClassVar[str] = "sr"

    lamb: float
    h: float = 0.01

    @classmethod
    def example(cls) -> Self:
        """Return an instance with a visible effect, for the contract tests."""
        return cls(lamb=0.1)

    def __post_init__(self) -> None:
        if not (self.lamb >= 0 and math.isfinite(self.lamb)):
            raise ValueError(f"SR: lamb is a weight >= 0, got {self.lamb:g}.")
        if not (self.h > 0 and math.isfinite(self.h)):
            raise ValueError(f"SR: h is a length > 0 in input units, got {self.h:g}.")

    @property
    def idle(self) -> bool:
        """Whether lamb is 0: then no further pass is run."""
        return self.lamb == 0

    @property
    def needs_input_gradient(self) -> bool:
        """True: the direction of the difference is that of an input gradient."""
        return True

    def term(self, step: Step) -> Tensor:
        """Return lamb times the mean squared difference quotient."""
        return self.measured(step).loss

    def measured(self, step: Step) -> Measured:
        """Return lamb and the mean squared difference quotient."""
        x, logits = step.seen.x, step.seen.logits
        seed = int(torch.randint(2**62, (1,), generator=step.generator))

        def run(images: Tensor) -> Tensor:
            noise = stream(seed, "noise", device=images.device)
            own = torch_seeded(seed, "torch", device=images.device)  # nn.Dropout
            with own, randomness(step.model, noise):
                output: Tensor = step.model(images)
            return output

        if any(_draws(module) for module in step.model.modules()):
            logits = run(x)
        competitor = strongest_other(logits.detach(), step.y)
        margin = advantage(logits, step.y, competitor)
        if not (margin.requires_grad and x.requires_grad):
            raise ValueError("SR: no gradient reaches the images; the model detaches them.")
        (grad,) = torch.autograd.grad(margin.sum(), x, retain_graph=True, allow_unused=True)
        if grad is None:
            raise ValueError("SR: no gradient reaches the images; the model detaches them.")
        shifted = run(x.detach() + self.h * grad.sign())
        change = advantage(shifted, step.y, competitor).sigmoid() - margin.sigmoid()
        return Measured(self.lamb, (change / self.h).square().mean())


def _draws(module: nn.Module) -> bool:
    dropping = isinstance(module, _DropoutNd) and module.training and module.p > 0
    return dropping or bool(getattr(module, "stochastic", False))


def strongest_other(logits: Tensor, y: Tensor) -> Tensor:
    """Return for each sample the class other than ``y`` with the highest logit [B]."""
    own = functional.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).argmax(1)


def advantage(logits: Tensor, y: Tensor, competitor: Tensor) -> Tensor:
    """Return z_y - z_c for each sample [B]; its sigmoid is the two-class softmax."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (logits.gather(1, y[:, None]) - logits.gather(1, competitor[:, None]))[:, 0]
