"""Threshold guarding optimisation (TGO): its penalty; the noisy neuron is ``NoisyLIF``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn

from spikeguard.defences.piece import Measured, Piece, Step
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.neurons.trace import LayerTrace

__all__ = ["TGO"]

Reduction = Literal["mean", "mean_of_layers", "sum", "sum_of_layers"]

# The paper prints 0.6 and 0.4. With a mean over neurons, a weight of 4 costs VGG-11 the clean
# accuracy of the paper's ablation. The weight for WRN-16 is multiplied by the same factor.
_PRESETS = {"vgg11": 4.0, "wrn16_4": 2.7}


@dataclass(frozen=True, repr=False)
class TGO(Piece):
    r"""Penalise potentials near the threshold, where a small perturbation flips a spike.

    .. math::
        C_l = \operatorname{mean}_{t,b,i}\,\max(0,\ \delta - |v_{l,i}[t] - v_{th}|), \qquad
        L = L_{CE} + \lambda(p) \sum_l C_l, \qquad
        \lambda(p) = \tfrac12 \lambda_{max} (1 - \cos \pi p)

    over all spiking layers l, with p the finished share of the training. With the triangular
    surrogate of half-width delta the penalty is exactly delta^2 times the mean surrogate
    derivative: the neurons within the margin are those that pass a gradient.

    Args:
        lambda_max: Weight at the end of the training, >= 0; 0 is plain training. With a mean over
            neurons the 0.6 and 0.4 of the paper have little effect. The default, 6.7 times the
            printed weight, costs about the clean accuracy of the paper's VGG-11 ablation (7
            points).
        delta: Margin around the threshold, in membrane units, > 0; the paper gives no value. None
            is the half-width of each layer's own surrogate (1.0 for the default one).
        reduction: Always a mean over T and batch. "mean": mean over the neurons of a layer, sum
            over layers. "mean_of_layers": the mean over neurons, time steps and layers. "sum":
            Eq. 12 as printed, the sum over all neurons divided by the number of spiking layers.
            "sum_of_layers": the sum over all neurons, not divided.
        noise: Penalise the potential "after" the neuron's noise of the same step is added (the one
            compared with the threshold), or "before"; the paper does not say.
        updates: lambda changes with every optimiser "step", or with every "epoch": then p is
            epoch / epochs of Eq. 14 with the first epoch as 0.

    Raises:
        ValueError: If a number is out of range or a word unknown; before training, if delta is None
            and a layer's surrogate has no finite half-width, or the model has no spiking layer.

    Example:
        >>> TGO(lambda_max=0.4).weight(0.0), TGO(lambda_max=0.4).weight(1.0)
        (0.0, 0.4)

    Source: TGO (arXiv:2602.20548), Eqs. 12 to 14; lambda_max 0.4 for WRN-16 and 0.6 for VGG-11.
        The mean over neurons, time steps and layers is the "average" of section 4.2.1.
    """

    name: ClassVar[str] = "tgo"
    needs_trace: ClassVar[bool] = True
    added_later: ClassVar[tuple[str, ...]] = ("updates",)

    lambda_max: float = 4.0
    delta: float | None = None
    reduction: Reduction = "mean"
    noise: Literal["after", "before"] = "after"
    updates: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        if not (self.lambda_max >= 0 and math.isfinite(self.lambda_max)):
            raise ValueError(f"TGO: lambda_max is a weight >= 0, got {self.lambda_max:g}.")
        if self.delta is not None and not (self.delta > 0 and math.isfinite(self.delta)):
            raise ValueError(
                f"TGO: delta is a margin > 0 in membrane units, got {self.delta:g}; leave it out "
                "for the half-width of the surrogate."
            )
        if self.reduction not in get_args(Reduction):
            known = ", ".join(get_args(Reduction))
            raise ValueError(f"TGO: reduction is one of {known}; got {self.reduction!r}.")
        if self.noise not in ("after", "before"):
            raise ValueError(f"TGO: noise is 'after' or 'before', got {self.noise!r}.")
        if self.updates not in ("step", "epoch"):
            raise ValueError(f"TGO: updates is 'step' or 'epoch', got {self.updates!r}.")

    @property
    def revised(self) -> Mapping[str, str]:
        """Reduction "sum" was not divided by the number of layers before it followed Eq. 12."""
        if self.reduction != "sum":
            return {}
        return {"TGO's reduction 'sum'": "divided by the number of spiking layers (Eq. 12)"}

    @classmethod
    def preset(cls, network: str) -> Self:
        """Return the setting for "vgg11" or "wrn16_4": 6.7 times the paper's weight."""
        if network not in _PRESETS:
            raise ValueError(f"TGO: presets are {', '.join(_PRESETS)}; got {network!r}.")
        return cls(lambda_max=_PRESETS[network])

    def weight(self, progress: float) -> float:
        """Return lambda at a finished share of the training in [0, 1]: from 0 to lambda_max."""
        return 0.5 * self.lambda_max * (1 - math.cos(math.pi * progress))

    def penalty(self, layer: LayerTrace, where: str = "layer") -> Tensor:
        """Return C_l, a scalar, for one layer, not divided by the number of layers.

        Args:
            layer: Trace of the layer; v is [T, B, *N].
            where: The layer's name, for the error message.
        """
        delta = self._margin(layer.surrogate, where)
        v = layer.v if self.noise == "after" else layer.v_before_noise
        hinge = (delta - (v - layer.v_th).abs()).clamp_min(0)
        if self.reduction.startswith("sum"):
            return hinge.sum() / (v.shape[0] * v.shape[1])
        return hinge.mean()

    def require(self, model: nn.Module, options: object) -> None:
        """Reject a model without spiking layers, or with a surrogate that gives no margin."""
        layers = [(name, m) for name, m in model.named_modules() if isinstance(m, Neuron)]
        if not layers:
            raise ValueError("TGO: the model has no spiking layer to penalise.")
        for name, layer in layers:
            self._margin(layer.surrogate, name)

    def _margin(self, surrogate: Surrogate, where: str) -> float:
        delta = self.delta if self.delta is not None else surrogate.half_width
        if not math.isfinite(delta):
            raise ValueError(
                f"TGO: {where} uses {surrogate}, which has no finite half-width; pass delta, for "
                "example TGO(delta=1.0)."
            )
        return delta

    def term(self, step: Step) -> Tensor:
        """Return lambda(progress) times the sum, or the mean, of the penalties of the layers."""
        return self.measured(step).loss

    def measured(self, step: Step) -> Measured:
        """Return lambda(progress), the sum or mean over layers, and the penalty of each layer."""
        trace = step.seen.trace
        if not trace:
            raise ValueError("TGO: the model has no spiking layer to penalise.")
        layers = {name: self.penalty(layer, name) for name, layer in trace.items()}
        penalties = torch.stack(list(layers.values()))
        summed = self.reduction in ("mean", "sum_of_layers")
        progress = step.progress if self.updates == "step" else step.epoch_progress
        total = penalties.sum() if summed else penalties.mean()
        return Measured(self.weight(progress), total, layers)
