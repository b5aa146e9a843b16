"""Projected gradient descent (PGD) and its one-step variants: FGSM and the R+FGSM family."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import FORWARD
from spikeguard.attacks.gradients.base import BACKPROP, EoT, Gradient, gradient_cost, start_search
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.attacks.model_access import classify, crafting
from spikeguard.attacks.searches.stepwise import State, Step, Watch
from spikeguard.attacks.threat import Threat, peak_of
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
        gradient: How the loss is differentiated.

    Source: Goodfellow et al., "Explaining and harnessing adversarial examples", ICLR 2015.
    """

    exempt_from: ClassVar[frozenset[str]] = frozenset({"moves_in_l1"})

    threat: Threat
    loss: Loss = cross_entropy
    gradient: Gradient = BACKPROP

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        return gradient_cost(self.gradient)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator):
            return _step(self, model, x, x, y, self.threat.eps)


@dataclass(frozen=True)
class RFGSM:
    r"""R+FGSM: a random step, then a gradient step. The name has seven meanings; see ``variant``.

    ====================  ====================================================================
    ``tramer``            x' = x + a sign(N), then a step eps - a; a = eps/2
    ``torchattacks-3.2``  x' = x + a sign(N), then one step a; a = eps: half the budget is lost
    ``torchattacks-3.4``  x' = x + a sign(N), then ten steps a; a = eps/4: in effect PGD
    ``snn-rat``           as ``tramer``, a = eps/2 (SNN-RAT, FEEL, RGA, HART)
    ``stog``              x' = x + a N, then a step eps - a; a = eps/2
    ``stable-snn``        x' = x + a N, then a step eps; a = eps
    ``stable-snn-train``  x' = x + a N, then a step eps; a = 0.001: FGSM with jitter
    ====================  ====================================================================

    N is standard normal; under L2, sign(N) becomes N / ||N|| and a step follows the direction of
    the gradient. The public code of the last three can leave the ball; here every variant ends with
    a projection into the threat set. Results of different variants are not comparable.

    Args:
        threat: The set the adversary may use.
        variant: The definition to use.
        alpha: The a above, in input units; None is the value in the table.
        loss: Per-sample loss to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If the variant is unknown, or alpha is negative, or above eps in a variant with
            a step of length eps - a.

    Source: Tramèr et al., "Ensemble adversarial training", ICLR 2018 (arXiv:1705.07204); the other
        variants are read from public code.
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
        limit = self.threat.eps if _VARIANTS[self.variant].step == "rest" else 1.0
        if self.alpha is not None and not 0 <= self.alpha <= limit:
            raise ValueError(
                f"RFGSM: alpha is the length of the random step, in [0, {limit:g}], "
                f"got {self.alpha:g}."
            )

    @property
    def exempt_from(self) -> frozenset[str]:
        """Names of the contract tests that one or two steps, or a random start, cannot pass."""
        once = _VARIANTS[self.variant].steps == 1
        return frozenset({"moves_in_l1", *(["linear_optimum"] if once else [])})

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample."""
        return _VARIANTS[self.variant].steps * gradient_cost(self.gradient)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        kind, eps = _VARIANTS[self.variant], self.threat.eps
        alpha = kind.alpha(eps) if self.alpha is None else self.alpha
        length = {"rest": eps - alpha, "alpha": alpha, "eps": eps}[kind.step]
        with crafting(model, x, y, generator) as streams:
            noise = streams.normal(x.shape, device=x.device).to(x.dtype)
            if kind.start == "sign":
                noise = self.threat.steepest(noise)
            x_adv = (x + alpha * noise).clamp(0, peak_of(self.threat))
            search = replace(self, gradient=start_search(self.gradient))
            for _ in range(kind.steps):
                x_adv = _step(search, model, x_adv, x, y, length)
            return x_adv


@dataclass(frozen=True)
class _Variant:
    """The start, step length and number of steps of an R+FGSM; "rest" is eps - alpha."""

    start: Literal["sign", "normal"]
    alpha: Callable[[float], float]
    step: Literal["rest", "alpha", "eps"]
    steps: int = 1


_VARIANTS: dict[str, _Variant] = {
    "tramer": _Variant("sign", lambda eps: eps / 2, "rest"),
    "torchattacks-3.2": _Variant("sign", lambda eps: eps, "alpha"),
    "torchattacks-3.4": _Variant("sign", lambda eps: eps / 4, "alpha", steps=10),
    "snn-rat": _Variant("sign", lambda eps: eps / 2, "rest"),
    "stog": _Variant("normal", lambda eps: eps / 2, "rest"),
    "stable-snn": _Variant("normal", lambda eps: eps, "eps"),
    "stable-snn-train": _Variant("normal", lambda eps: 0.001, "eps"),
}


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent; returns the last iterate, as its source does.

    EoT-PGD is ``PGD(..., gradient=EoT(16))``. PGD with another surrogate is
    ``PGD(..., gradient=SwapSurrogate(Triangular(2.0)))``.

    Args:
        threat: The set the adversary may use; it defines projection and step direction.
        steps: Gradient steps, >= 1.
        step_size: Length of one step, in input units; None is 2.5 eps / steps.
        restarts: Independent searches, >= 1. Each sample keeps a search that fools the model, if
            there is one; ties go to the highest final loss.
        random_start: Start at a random point of the threat set instead of at ``x``.
        loss: Per-sample loss ``(logits, y) -> [B]`` to maximise.
        gradient: How the loss is differentiated.

    Raises:
        ValueError: If steps or restarts is below 1, step_size is not positive, or there are several
            restarts without a random start.

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
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"PGD: {self.restarts} restarts without a random start are the same search; set "
                "random_start=True or restarts=1."
            )
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"PGD: step_size must be positive, got {self.step_size:g}.")

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample; several restarts are compared by forward passes."""
        draws = self.gradient.draws if isinstance(self.gradient, EoT) else 1
        ranked = self.restarts * draws * FORWARD if self.restarts > 1 else 0
        return self.restarts * self.steps * gradient_cost(self.gradient) + ranked

    @property
    def rounds(self) -> int:
        """Largest number of searches per sample in a step-by-step run."""
        return self.restarts

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state of a restart, at the same start as in the plain call."""
        start = x
        for _ in range(round_ + 1 if self.random_start else 0):
            start = self.threat.sample(x, streams)
        return {"x_adv": start, "done": torch.zeros_like(y)}

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample; ``seen`` is the point before the step."""
        watch, here, done = Watch(self.loss), state["x_adv"], state["done"] + 1
        there = _step(replace(self, loss=watch), model, here, x, y, self.step_length)
        moved = {"x_adv": there, "done": done}
        return Step(moved, here, watch.outcome(y), there, done == self.steps)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        with crafting(model, x, y, generator) as streams:
            best = self._search(model, x, y, streams)
            if self.restarts == 1:
                return best
            fooled, loss = self._outcome(model, best, y)
            for _ in range(self.restarts - 1):
                found = self._search(model, x, y, streams)
                now_fooled, now_loss = self._outcome(model, found, y)
                better = (now_fooled > fooled) | ((now_fooled == fooled) & (now_loss > loss))
                best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), found, best)
                fooled = torch.where(better, now_fooled, fooled)
                loss = torch.where(better, now_loss, loss)
            return best

    @property
    def step_length(self) -> float:
        """Length of one step, in input units."""
        return 2.5 * self.threat.eps / self.steps if self.step_size is None else self.step_size

    def _search(self, model: nn.Module, x: Tensor, y: Tensor, streams: SampleStreams) -> Tensor:
        x_adv = self.threat.sample(x, streams) if self.random_start else x
        search = replace(self, gradient=start_search(self.gradient))
        for _ in range(self.steps):
            x_adv = _step(search, model, x_adv, x, y, self.step_length)
        return x_adv

    def _outcome(self, model: nn.Module, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return how often each sample fools the model and its loss, summed over the draws [B]."""
        draws = self.gradient.draws if isinstance(self.gradient, EoT) else 1
        logits = [classify(model, x_adv, y) for _ in range(draws)]
        fooled = torch.stack([z.argmax(1) != y for z in logits]).sum(0)
        return fooled, torch.stack([self.loss(z, y) for z in logits]).sum(0)


def _step(
    attack: FGSM | RFGSM | PGD, model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, length: float
) -> Tensor:
    """Take one projected step of the given length."""
    _, grad = attack.gradient(model, x_adv, y, attack.loss)
    return attack.threat.project(x_adv + length * attack.threat.steepest(grad), x)
