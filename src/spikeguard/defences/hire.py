"""HIRE: training on input noise, crafted in each time segment from the previous gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import crafting
from spikeguard.attacks.threat import Linf
from spikeguard.defences.piece import Piece
from spikeguard.models.snn import SNN
from spikeguard.system.pixel_units import radius_problem

__all__ = ["HIRE"]


@dataclass(frozen=True)
class HIRE(Piece):
    r"""Train on a different perturbed image in each segment of the T time steps.

    .. math::
        \delta_1 = 0, \qquad
        \delta_{n+1} = \Pi_\epsilon\Big(\delta_n + \alpha\,
        \mathrm{sign} \sum_{t \in \text{segment } n} \frac{\partial L}{\partial x[t]}\Big), \qquad
        x[t] = x + \delta_n \text{ for } t \in \text{segment } n

    The input of the first segment is the image. The input of each later segment is built with the
    input gradient of the segment before it and projected into the eps ball and [0, 1]. The gradient
    of segment n comes from a forward pass in which the input of segment n is repeated to the last
    step. The training pass then runs on all inputs. The encoder must encode every step alike, as
    direct coding does.

    Two differences from the paper: the paper updates the weights after every segment, here each
    batch makes one update; the paper takes the input gradient from the training pass, here it is
    computed in evaluation mode, as for every attack.

    Args:
        eps: Bound on the noise, in input units, >= 0; 0 is plain training.
        segments: Number of segments, >= 2; each has T // segments steps, or one more.
        step_size: alpha, in input units, > 0; None is eps.

    Raises:
        ValueError: If a number is out of range; before training, if the model is not an SNN with
            such an encoder and at least as many time steps as segments.
        AttackError: If a gradient is not finite.

    Source: Kundu et al., "HIRE-SNN: harnessing the inherent robustness of energy-efficient deep
        spiking neural networks by training with crafted input noise", ICCV 2021. No training code
        is public.
    """

    name: ClassVar[str] = "hire"

    eps: float = 8 / 255
    segments: int = 2
    step_size: float | None = None

    def __post_init__(self) -> None:
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"HIRE: eps is a radius >= 0 in input units, got {self.eps:g}.")
        if radius_problem("linf", self.eps):
            raise ValueError(f"HIRE: {radius_problem('linf', self.eps)}")
        if self.segments < 2:
            raise ValueError(
                f"HIRE: segments must be >= 2, got {self.segments}; the first has no noise."
            )
        size = self.step_size
        if size is not None and not (size > 0 and math.isfinite(size)):
            raise ValueError(f"HIRE: step_size must be positive, got {size:g}.")

    def require(self, model: nn.Module, options: object) -> None:
        """Reject a model that does not accept one image per time step, or has too few steps."""
        if not isinstance(model, SNN) or not model.encoder.constant:
            raise ValueError(
                "hire: needs one image per time step; use an SNN with model.encoder: direct."
            )
        if self.segments > model.T:
            raise ValueError(
                f"hire: {self.segments} segments need at least as many time steps, got "
                f"T = {model.T}."
            )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return one image for every step [T, B, ...]; the model is unchanged."""
        if self.eps == 0:
            return x
        self.require(model, None)
        assert isinstance(model, SNN)
        threat, size = Linf(self.eps), self.eps if self.step_size is None else self.step_size
        edges = [n * model.T // self.segments for n in range(self.segments)]
        frames = x.repeat(model.T, *[1] * x.ndim)
        with crafting(model, x, y, generator):
            for begin, end in pairwise(edges):
                grad = _gradient(model, frames, y)[begin:end].sum(0)
                frames[end:] = threat.project(frames[begin] + size * threat.steepest(grad), x)
        return frames


def _gradient(model: nn.Module, frames: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the summed cross-entropy in each step's images [T, B, ...]."""
    inputs = frames.clone().requires_grad_()
    with torch.enable_grad():
        loss = cross_entropy(model(inputs), y).sum()
        (grad,) = torch.autograd.grad(loss, inputs)
    if not bool(torch.isfinite(grad).all()):
        raise AttackError("hire: the gradient is not finite.")
    return grad
