"""Networks whose gradients, Jacobians and linear regions have closed forms."""

import torch
from torch import nn

from spikeguard.neurons import IF
from spikeguard.rng import stream


def linear_network(weight, *, pool=None):
    """Return logits W x of an image, behind a pooling if there is one."""
    before = [] if pool is None else [pool]
    model = nn.Sequential(*before, nn.Flatten(), nn.Linear(weight.shape[1], len(weight)))
    with torch.no_grad():
        model[-1].weight.copy_(weight)
        model[-1].bias.zero_()
    return model


def two_logits(w):
    """Return the network with logits w x and 0."""
    return linear_network(torch.stack([w, torch.zeros_like(w)]))


class Neurons(nn.Module):
    """Spiking neurons, each with a constant current: weight times the first pixel plus a bias."""

    def __init__(self, neuron, T, weight, bias):
        super().__init__()
        self.neuron, self.T = neuron, T
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x):
        current = x.flatten(1)[:, :1] * self.weight + self.bias
        rates = self.neuron(current.expand(self.T, *current.shape)).mean(0)
        return torch.stack([rates.sum(1), -rates.sum(1)], 1)


def random_thresholds(n):
    """Return n neurons that start to fire at random places of the first pixel in [0, 1]."""
    places = torch.rand(n, generator=stream(0, "thresholds"))
    return Neurons(IF(v_th=1.0), 1, torch.ones(n), 1 - places)
