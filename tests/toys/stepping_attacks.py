"""Searches run step by step on toys: a classifier that counts its passes, and row-wise networks."""

import torch
from torch import nn

from spikeguard.attacks import PGD, Linf
from spikeguard.models import MLP
from spikeguard.neurons import LIF
from spikeguard.rng import stream

STEP = 0.02


class Sign(nn.Module):
    """Class 1 above 1/2; records the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        score = x.flatten(1).mean(1) - 0.5
        return torch.stack([-score, score], 1)


def walk(**changes):
    """PGD that goes down from the input in ten steps of 0.02."""
    return PGD(Linf(0.2), **{"steps": 10, "step_size": STEP, "random_start": False, **changes})


class Rowwise(nn.Linear):
    """A linear layer whose sums do not depend on the batch size in the last bit."""

    def forward(self, x):
        return (x[..., None, :] * self.weight).sum(-1) + self.bias


def spiking():
    neuron = LIF(0.5, v_th=0.3)
    model = MLP(16, 3, T=3, hidden=(12,), neuron=neuron, generator=stream(0, "w")).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = Rowwise
    return model
