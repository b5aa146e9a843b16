"""Spiking networks on event grids [B, T, C, H, W], small enough to enumerate their inputs."""

import torch
from torch import nn

from spikeguard.neurons import LIF
from spikeguard.rng import stream

__all__ = ["EventNet", "LinearEvents", "event_grids", "trained"]


class EventNet(nn.Module):
    """A convolution, a spiking layer and a linear readout, averaged over time."""

    def __init__(self, channels=2, size=4, width=4, classes=3, neuron=None, seed=0):
        super().__init__()
        generator = stream(seed, "weights")
        self.features = nn.Conv2d(channels, width, 3, padding=1)
        self.neuron = LIF(0.5, v_th=0.3) if neuron is None else neuron
        self.classifier = nn.Linear(width * size**2, classes)
        for parameter in self.parameters():
            scale = 0.5 if parameter.ndim > 2 else 0.3 if parameter.ndim == 2 else 0.05
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)

    def forward(self, x):
        frames = x.transpose(0, 1)
        current = self.features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.classifier(self.neuron(current).flatten(2).mean(0))


class LinearEvents(nn.Module):
    """Two logits 0 and <w, x> - shift; class 0 is attacked along +w."""

    def __init__(self, weight, shift=0.0):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.shift = shift

    def forward(self, x):
        score = (x.flatten(1) * self.weight.flatten()).sum(1) - self.shift
        return torch.stack([torch.zeros_like(score), score], 1)


def event_grids(n, shape, seed=0, share=0.3):
    """Return binary grids [n, T, C, H, W]; of two polarities, a cell holds at most one."""
    x = (torch.rand(n, *shape, generator=stream(seed, "grids")) < share).float()
    if shape[1] == 2:
        x[:, :, 1] *= 1 - x[:, :, 0]
    return x


def trained(model, x, y, steps=60):
    """Train a network on a few grids with Adam; return it."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval()
