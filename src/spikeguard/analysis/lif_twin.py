"""A copy of a network with plain LIF neurons, against which a defence's time is measured."""

from __future__ import annotations

import copy

import torch
from torch import nn

from spikeguard.analysis.base import NotApplicable
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.lif import IF, LIF

__all__ = ["plain_twin"]


def plain_twin(model: nn.Module) -> nn.Module:
    """Return a copy of a network whose neurons are LIF of the same threshold, reset and surrogate.

    LIF and IF stay as they are. A leak that is learned or differs between neurons becomes its mean
    where it is known, else 0.5.

    Raises:
        NotApplicable: If the network has no neuron of SpikeGuard.
    """
    twin = copy.deepcopy(model)
    neurons = [(name, m) for name, m in twin.named_modules() if isinstance(m, Neuron)]
    if not neurons:
        raise NotApplicable(
            "overhead needs neurons of SpikeGuard to replace; the network has none."
        )
    for name, neuron in neurons:
        if type(neuron) in (LIF, IF):
            continue
        parent, _, place = name.rpartition(".")
        setattr(twin.get_submodule(parent), place, _plain(neuron))
    return twin


def _plain(neuron: Neuron) -> LIF:
    """Return a LIF neuron with the settings of another one."""
    decay = getattr(neuron, "decay", 0.5)
    decay = float(decay.detach().mean()) if isinstance(decay, torch.Tensor) else float(decay)
    plain = LIF(
        min(1.0, max(decay, 1e-3)),
        neuron.v_th,
        surrogate=neuron.surrogate,
        detach_reset=neuron.detach_reset,
        reset=neuron.reset,
    )
    return plain.train(neuron.training)
