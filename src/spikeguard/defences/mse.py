"""Mean squared error between firing rates and one-hot labels, instead of the cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from spikeguard.defences.piece import Piece
from spikeguard.neurons.base import Neuron

__all__ = ["MSERates"]


@dataclass(frozen=True)
class MSERates(Piece):
    r"""Train the neuron of the true class to fire at every step, and all others never to fire.

    .. math:: L = \operatorname{mean}_{b,k} (r_{b,k} - [k = y_b])^2

    r is the firing rate of the output neurons, in [0, 1], of a network with the readout "rate". The
    loss replaces the cross-entropy and combines with perturbations and terms in the same way. It is
    not a defence.

    Raises:
        ValueError: Before training, if the network's readout is not "rate".

    Source: the loss of the operational-space study (Mazurek et al.), as in SpikingJelly's examples.
    """

    name: ClassVar[str] = "mse_rates"

    def require(self, model: nn.Module, options: object) -> None:
        """Reject a network whose outputs are not firing rates."""
        *_, last = model.modules()
        if not isinstance(last, Neuron):
            raise ValueError(
                "MSERates: compares firing rates with the label, but the network's outputs are the "
                "potentials of a linear layer; set model.readout to rate."
            )

    def fit(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean squared error of rates [B, K] against the one-hot labels."""
        return functional.mse_loss(logits, functional.one_hot(y, logits.shape[1]).to(logits.dtype))
