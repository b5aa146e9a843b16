"""Gradients for spiking networks: exact spikes forward, a replaced derivative backward."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.gradients.foreign_layers import activated, cut_gradient
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import evaluating
from spikeguard.models.adapters.classifier import Foreign
from spikeguard.models.adapters.foreign_neuron import ForeignError, ForeignNeuron
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.custom_backward import Analogue, BackwardRule, Fired, Prescription
from spikeguard.neurons.modes import backward_rule, record, spiking_layers
from spikeguard.neurons.surrogate import Triangular

__all__ = ["BPTR", "HART", "PDSG", "RGA", "differentiate", "prescribable"]


def differentiate(
    owner: str,
    rule: BackwardRule | Analogue,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
) -> tuple[Tensor, Tensor]:
    """Return the losses [B] and the input gradient, with a rule in every spiking layer.

    Raises:
        ValueError: If the model has no spiking layer; the message starts with ``owner``.
        ForeignError: If the potentials of a foreign layer cannot be recorded.
    """
    if any(isinstance(module, Neuron) for module in model.modules()):
        with backward_rule(model, rule):
            return BACKPROP(model, x, y, loss)
    adapter = next((module for module in model.modules() if isinstance(module, Foreign)), None)
    if adapter is None or not adapter.spiking_layers():
        raise ValueError(
            f"{owner}: the model has no spiking layer of spikeguard.neurons, or of a network "
            "wrapped with spikeguard.foreign, whose derivative it could replace; use Backprop(), "
            "or NES(), which needs no derivative."
        )
    if not adapter.settled:
        with torch.no_grad():
            model(x[:1])
    if isinstance(rule, Analogue):
        return activated(rule, adapter, model, x, y, loss)
    return cut_gradient(rule, adapter, model, x, y, loss)


def prescribable(model: nn.Module, example: Tensor | None = None) -> bool:
    """Whether a rule can replace the derivative of every spiking layer.

    In a foreign network this requires layers with a known recurrence. With ``example`` inputs
    [B, ...], the spikes of the layers are also checked against that recurrence.
    """
    if any(isinstance(module, Neuron) for module in model.modules()):
        return True
    layers = spiking_layers(model).values()
    if not layers or not all(isinstance(layer, ForeignNeuron) and layer.known for layer in layers):
        return False
    try:
        with evaluating(model), torch.no_grad(), record(model):
            if example is not None:
                place = next(iter((*model.parameters(), *model.buffers())), example)
                model(example.to(place.device))
    except ForeignError:
        return False
    return True


@dataclass(frozen=True)
class BPTR:
    r"""Backward pass through rate: only neurons that fire at least once pass a gradient.

    .. math:: \frac{\partial s[t]}{\partial I[t]} := \frac{1}{v_{th}}\,1\Big[\sum_t s[t] > 0\Big]

    The slope is the same at every step; no gradient flows through time.

    Raises:
        ValueError: At a call, if the model has no spiking layer.

    Source: Ding et al., "SNN-RAT", NeurIPS 2022 (there v_th = 1).
    """

    def prescribe(self, fired: Fired) -> Prescription:
        """Return the slope [1, B, *N]."""
        active = fired.spikes.amax(0, keepdim=True) > 0
        return Prescription(active.to(fired.v.dtype) / fired.v_th)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        return differentiate("BPTR", self.prescribe, model, x, y, loss)


@dataclass(frozen=True)
class RGA:
    r"""Rate gradient approximation: the slope of a neuron's rate as a function of mean current.

    .. math::
        \frac{\partial s[t]}{\partial I[t]} := \frac{1}{v_{th}} \begin{cases}
        (1 - g + g \lambda) / (1 + \lambda) & 1 - \lambda \le x \le 2 \\
        g & 0 \le x < 1 - \lambda \\ 0 & \text{elsewhere} \end{cases}
        \qquad x = \frac{1}{T\,v_{th}} \sum_t I[t]

    The rate grows with slope g up to the current 1 - lambda at which a neuron without noise starts
    to fire, and from there linearly to rate 1 at current 2. The slope is the same at every step; no
    gradient flows through time. A leak that varies over time is replaced by its mean, clipped to
    [0, 1].

    Args:
        g: Slope below the current at which a neuron starts to fire, in [0, 1].

    Raises:
        ValueError: If g is out of range; at a call, if the model has no spiking layer.

    Source: Bu et al., "Rate gradient approximation attack threats deep spiking neural networks",
        CVPR 2023 (there v_th = 1).
    """

    g: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.g <= 1:
            raise ValueError(f"RGA: g is a slope in [0, 1], got {self.g:g}.")

    def prescribe(self, fired: Fired) -> Prescription:
        """Return the slope [1, B, *N]."""
        x = fired.current.mean(0, keepdim=True) / fired.v_th
        decay = fired.decay if fired.decay.ndim == 0 else fired.decay.mean(0, keepdim=True)
        decay = decay.clamp(0, 1)
        silent, firing = (x >= 0) & (x < 1 - decay), (x >= 1 - decay) & (x <= 2)
        steep = (1 - self.g + self.g * decay) / (1 + decay)
        slope = torch.where(firing, steep, torch.zeros_like(x).masked_fill(silent, self.g))
        return Prescription(slope / fired.v_th)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        return differentiate("RGA", self.prescribe, model, x, y, loss)


@dataclass(frozen=True)
class HART:
    r"""Rate and time combined: a triangle of width gamma, and gradients averaged over time.

    .. math::
        \frac{\partial L}{\partial I[t]} := \frac1T \sum_{t'} \frac{\partial L}{\partial s[t']}\,
        \frac{\max(0, \gamma - |v[t'] - v_{th}|)}{\gamma^2}

    for every t; no gradient flows through the recurrence.

    Args:
        gamma: Half-width of the triangle in membrane units, > 0. The best value depends on the
            model: choose it with ``tune`` on validation data. The source searches 0.1 to 2.45.

    Raises:
        ValueError: If gamma is not positive; at a call, if the model has no spiking layer.

    Source: Hao et al., "Threaten spiking neural networks through combining rate and temporal
        information", ICLR 2024.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"HART: gamma is a half-width > 0, got {self.gamma:g}.")

    def prescribe(self, fired: Fired) -> Prescription:
        """Return the slope [T, B, *N], to be averaged over time."""
        slope = Triangular(self.gamma)(fired.v - fired.v_th)
        return Prescription(slope, averaged=True)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        return differentiate("HART", self.prescribe, model, x, y, loss)


@dataclass(frozen=True)
class PDSG:
    r"""Potential-dependent surrogate: a Gaussian as wide as the spread of the potentials.

    .. math::
        h(v) = \frac{1}{\sqrt{2 \pi}\,\sigma}
        \exp\Big(-\frac{(v - v_{th} - \sigma/2)^2}{2 \sigma^2}\Big)

    At step t, sigma is the standard deviation of the potentials of steps 0 to t. In a feature map
    it is taken per channel over the positions, in a layer without positions over the neurons. It
    is 1 where all potentials are equal. The rest is backpropagation through time. There is no
    parameter to tune.

    Args:
        batch: Pool the samples of the batch too, as the source does. The attack on one sample then
            depends on the other samples and on the batch size.

    Raises:
        ValueError: At a call, if the model has no spiking layer.

    Source: Lun et al., "Towards effective and sparse adversarial attack on spiking neural networks
        via breaking invisible surrogate gradients", CVPR 2025 (arXiv:2503.03272).
    """

    batch: bool = False

    def prescribe(self, fired: Fired) -> Prescription:
        """Return the slope [T, B, *N]."""
        v = fired.v
        pooled = [*([1] if self.batch else []), *range(3 if v.ndim > 3 else 2, v.ndim)]
        sigma = _spread_so_far(v, pooled)
        x = (v - fired.v_th - sigma / 2) / sigma
        slope = torch.exp(-0.5 * x.square()) / (math.sqrt(2 * math.pi) * sigma)
        return Prescription(slope, temporal=True)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        return differentiate("PDSG", self.prescribe, model, x, y, loss)


def _spread_so_far(v: Tensor, dims: list[int]) -> Tensor:
    """Return, for each step, the standard deviation over all steps up to it and the axes ``dims``.

    Those axes keep length 1. Where the spread is zero the result is 1. Each step's variance is
    computed once; the steps are merged as in Chan, Golub and LeVeque (1983).
    """
    if dims:
        squares, means = torch.var_mean(v, dims, correction=0, keepdim=True)
    else:
        squares, means = torch.zeros_like(v), v
    n = math.prod(v.shape[dim] for dim in dims)
    total, mean, steps = squares[0] * n, means[0], []
    for t in range(len(v)):
        if t > 0:
            apart = means[t] - mean
            mean = mean + apart / (t + 1)
            total = total + squares[t] * n + apart.square() * (n * t / (t + 1))
        sigma = (total / max(1, n * (t + 1) - 1)).sqrt()
        steps.append(torch.where(sigma == 0, 1.0, sigma))
    return torch.stack(steps)
