"""MPD-SGR: a penalty on the share of membrane potentials within the surrogate's range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from spikeguard.defences.piece import Measured, Pass, Piece, Step
from spikeguard.kernels.batch_statistics import moments
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.neurons.trace import LayerTrace

__all__ = ["MPDSGR"]

_EPS = 1e-5  # added to a variance, as batch normalisation does


@dataclass(frozen=True)
class MPDSGR(Piece):
    r"""Penalise the share of potentials that pass a gradient, modelled as Gaussian.

    .. math::
        \Omega = \Phi\Big(\frac{\mu + g}{s}\Big) - \Phi\Big(\frac{\mu - g}{s}\Big)
               = P(|v - v_{th}| < g), \qquad
        L = L_{CE} + \eta \operatorname{mean}_{l,t,c} \Omega_{l,t,c}

    mu and s are mean and standard deviation of v - v_th over the batch (and the feature map), one
    pair for each layer l, step t and channel c. In a fully connected layer each neuron is one
    channel. g is the half-width of the surrogate. The mean is taken over steps and channels of a
    layer and then over layers, so that a layer of 4096 neurons does not outweigh all others.

    The paper leaves out the last linear layer: its logits are averaged potentials, and no neuron
    fires. In these networks no neuron follows the last linear layer, except with the readout
    "rate", whose output neuron is left out.

    Args:
        eta: Weight of the penalty, >= 0; 0 is plain training.
        width: Half-width g of the range, in membrane units, > 0; None is the half-width of each
            layer's own surrogate (1.0 for the default one).

    Raises:
        ValueError: If a number is out of range; before training, if width is None and a layer's
            surrogate has no finite half-width, or the model has no spiking layer before its
            readout.

    Source: Jiang et al., "MPD-SGR", AAAI 2026, arXiv:2511.12199; there is no public code.
    """

    name: ClassVar[str] = "mpd_sgr"
    needs_trace: ClassVar[bool] = True
    of_whole_batch: ClassVar[bool] = True

    eta: float
    width: float | None = None

    @classmethod
    def example(cls) -> Self:
        """Return an instance with a visible effect, for the contract tests."""
        return cls(eta=0.1)

    def __post_init__(self) -> None:
        if not (self.eta >= 0 and math.isfinite(self.eta)):
            raise ValueError(f"MPDSGR: eta is a weight >= 0, got {self.eta:g}.")
        if self.width is not None and not (self.width > 0 and math.isfinite(self.width)):
            raise ValueError(
                f"MPDSGR: width is a half-width > 0 in membrane units, got {self.width:g}; leave "
                "it out for that of the surrogate."
            )

    def share(self, layer: LayerTrace, where: str = "layer") -> Tensor:
        """Return Omega [T, C] of one layer.

        Args:
            layer: Trace of the layer; v is [T, B, C, ...].
            where: The layer's name, for the error message.
        """
        g = self._reach(layer.surrogate, where)
        x = layer.v - layer.v_th
        axes = [1, *range(3, x.ndim)]
        mean, var = moments(x, axes)
        s = (var + _EPS).sqrt()
        inside: Tensor = torch.special.ndtr((mean + g) / s) - torch.special.ndtr((mean - g) / s)
        return inside

    def require(self, model: nn.Module, options: object) -> None:
        """Reject a model without spiking layers, or with a surrogate of infinite width."""
        *_, last = model.modules()  # the output neuron of the readout "rate" is not penalised
        layers = {n: m for n, m in model.named_modules() if isinstance(m, Neuron) and m is not last}
        if not layers:
            raise ValueError("MPDSGR: the model has no spiking layer before its readout.")
        for name, layer in layers.items():
            self._reach(layer.surrogate, name)

    def _reach(self, surrogate: Surrogate, where: str) -> float:
        g = self.width if self.width is not None else surrogate.half_width
        if not math.isfinite(g):
            raise ValueError(
                f"MPDSGR: {where} uses {surrogate}, which has no finite half-width; pass width, "
                "for example MPDSGR(eta=0.1, width=1.0)."
            )
        return g

    def term(self, step: Step) -> Tensor:
        """Return eta times the mean share over layers, steps and channels."""
        return self.measured(step).loss

    def measured(self, step: Step) -> Measured:
        """Return eta, the mean share over layers, and the mean share of each layer."""
        layers = hidden_layers(step.model, step.seen)
        if not layers:
            raise ValueError("MPDSGR: the model has no spiking layer before its readout.")
        shares = {name: self.share(layer, name).mean() for name, layer in layers.items()}
        return Measured(self.eta, torch.stack(list(shares.values())).mean(), shares)


def hidden_layers(model: nn.Module, seen: Pass) -> dict[str, LayerTrace]:
    """Return all spiking layers except the output neuron of the readout "rate"."""
    *_, last = model.modules()
    outside = {name for name, module in model.named_modules() if module is last}
    return {name: layer for name, layer in (seen.trace or {}).items() if name not in outside}
