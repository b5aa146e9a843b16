"""Projected gradient descent and its one-step relatives: FGSM, the R+FGSM family, PGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Loss, crafting, cross_entropy
from spikeguard.attacks.gradient import BACKPROP, Gradient
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams

__all__ = ["FGSM", "PGD", "RFGSM", "RFGSMVariant"]

RFGSMVariant = Literal[
    "tramer",
    "torchattacks-3.2",
    "torchattacks-3.4",
    "snn-rat",
    "stog",
    "stable-snn",
    "stable-snn-train",
]


@dataclass(frozen=True)
class FGSM:
    """Fast gradient sign method: one step of length eps, no random start.

    Args:
        threat: The set the adversary may use.
        loss: Per-sample loss to maximise.
        gradient: How it is differentiated.

    Source: Goodfellow et al., "Explaining and harnessing adversarial examples", ICLR 2015.
    """

    threat: Threat
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left as it was."""
        with crafting(model, x, y, generator):
            return _step(self, model, x, x, y, self.threat.eps)


@dataclass(frozen=True)
class RFGSM:
    r"""R+FGSM: a random step, then a gradient step. The name has seven meanings; see ``variant``.

    ====================  ====================================================================
    ``tramer``            x' = x + a sign(N), then a step eps - a; a = eps/2
    ``torchattacks-3.2``  x' = x + a sign(N), then one step a; a = eps: half the budget is lost
    ``torchattacks-3.4``  x' = x + a sign(N), then ten steps a; a = eps/4: really a PGD
    ``snn-rat``           as ``tramer`` with a = eps/2 (SNN-RAT, FEEL, RGA, HART)
    ``stog``              x' = x + a N, then a step eps - a; a = eps/2
    ``stable-snn``        x' = x + a N, then a step eps; a = eps
    ``stable-snn-train``  x' = x + 0.001 N, then a step eps: FGSM with a jitter
    ====================  ====================================================================

    N is standard normal. The last three leave the ball in their public code; here every variant is
    projected back into the threat set. Numbers under different variants are not comparable.

    Args:
        threat: The set the adversary may use.
        variant: Which of the definitions.
        alpha: The a above; None is the value in the table.
        loss: Per-sample loss to maximise.
        gradient: How it is differentiated.

    Raises:
        ValueError: If the variant is unknown, or alpha is negative, or above eps where eps - a is a
            step.

    Source: Tramèr et al., "Ensemble adversarial training", ICLR 2018 (arXiv:1705.07204).
    """

    threat: Threat
    variant: RFGSMVariant = "tramer"
    alpha: float | None = None
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.variant not in get_args(RFGSMVariant):
            raise ValueError(
                f"RFGSM: unknown variant {self.variant!r}; "
                f"known: {', '.join(get_args(RFGSMVariant))}."
            )
        splits = self.variant in ("tramer", "snn-rat", "stog")  # a step of eps - a must be left
        limit = self.threat.eps if splits else 1.0
        if self.alpha is not None and not 0 <= self.alpha <= limit:
            raise ValueError(
                f"RFGSM: alpha is the length of the random step, in [0, {limit:g}], "
                f"got {self.alpha:g}."
            )

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left as it was."""
        eps, alpha = self.threat.eps, self._alpha()
        with crafting(model, x, y, generator) as streams:
            noise = streams.normal(x.shape, device=x.device).to(x.dtype)
            if self.variant in ("tramer", "snn-rat", "torchattacks-3.2", "torchattacks-3.4"):
                noise = self.threat.steepest(noise)
            x_adv = (x + alpha * noise).clamp(0, 1)
            if not self.variant.startswith("stable-snn") and self.variant != "stog":
                x_adv = self.threat.project(x_adv, x)
            for _ in range(10 if self.variant == "torchattacks-3.4" else 1):
                step = {
                    "torchattacks-3.2": alpha,
                    "torchattacks-3.4": alpha,
                    "stable-snn": eps,
                    "stable-snn-train": eps,
                }.get(self.variant, eps - alpha)
                x_adv = _step(self, model, x_adv, x, y, step)
            return x_adv

    def _alpha(self) -> float:
        if self.alpha is not None:
            return self.alpha
        eps = self.threat.eps
        shares = {"torchattacks-3.2": eps, "torchattacks-3.4": eps / 4, "stable-snn": eps}
        return (
            min(0.001, eps)
            if self.variant == "stable-snn-train"
            else shares.get(self.variant, eps / 2)
        )


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent; returns the last iterate, as its source does.

    EoT-PGD is ``PGD(..., gradient=EoT(16))``; an attacker with another surrogate is
    ``PGD(..., gradient=SwapSurrogate(Triangular(2.0)))``.

    Args:
        threat: The set the adversary may use; owns projection and step direction.
        steps: Gradient steps, >= 1.
        step_size: Length of one step, in input units; None is 2.5 eps / steps.
        restarts: Independent searches, >= 1; each sample keeps the one that fools the model, and of
            those (or of none) the one of highest final loss.
        random_start: Start at a random point of the threat set instead of at ``x``.
        loss: Per-sample loss ``(logits, y) -> [B]`` to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If steps or restarts is below 1, or step_size is not positive.

    Source: Madry et al., "Towards deep learning models resistant ...", 2018 (arXiv:1706.06083).
    """

    threat: Threat
    steps: int = 10
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"PGD: steps must be >= 1, got {self.steps}.")
        if self.restarts < 1:
            raise ValueError(f"PGD: restarts must be >= 1, got {self.restarts}.")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"PGD: step_size must be positive, got {self.step_size:g}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left as it was."""
        with crafting(model, x, y, generator) as streams:
            best = self._search(model, x, y, streams)
            if self.restarts == 1:
                return best
            best_rank = _rank(model, best, y, self.loss)
            for _ in range(self.restarts - 1):
                found = self._search(model, x, y, streams)
                rank = _rank(model, found, y, self.loss)
                better = rank > best_rank
                best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), found, best)
                best_rank = torch.where(better, rank, best_rank)
            return best

    def _search(self, model: nn.Module, x: Tensor, y: Tensor, streams: SampleStreams) -> Tensor:
        step_size = (
            self.step_size if self.step_size is not None else 2.5 * self.threat.eps / self.steps
        )
        x_adv = self.threat.sample(x, streams) if self.random_start else x
        for _ in range(self.steps):
            x_adv = _step(self, model, x_adv, x, y, step_size)
        return x_adv


def _step(
    attack: FGSM | RFGSM | PGD, model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, length: float
) -> Tensor:
    """Take one projected step of the given length."""
    _, grad = attack.gradient(model, x_adv, y, attack.loss)
    return attack.threat.project(x_adv + length * attack.threat.steepest(grad), x)


@torch.no_grad()
def _rank(model: nn.Module, x_adv: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Order restarts: fooled before not fooled, then by loss [B]."""
    logits = model(x_adv)
    fooled = (logits.argmax(1) != y).to(logits.dtype)
    rank: Tensor = torch.atan(loss(logits, y).double()) + 4 * fooled
    return rank
