"""Models whose accuracy under attack has a closed form: a linear one, and a coin."""

import torch
from torch import nn

from spikeguard.rng import RandomSource

EPS = 0.1
LIGHT = torch.linspace(0.022, 0.198, 45)  # distances to the boundary, none at a radius
LABELS = torch.arange(45) % 2
PATTERN = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
IMAGES = 0.5 + PATTERN * (LIGHT * (2 * LABELS - 1)).view(-1, 1, 1, 1)


class Linear(nn.Module):
    """Classes are the sign of <pattern, x - 1/2>: Linf noise of eps fools exactly LIGHT < eps."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(PATTERN.flatten().clone())

    def forward(self, x):
        score = (x - 0.5).flatten(1) @ self.w
        return torch.stack([-score, score], 1)


class Coin(nn.Module):
    """Is correct with probability 3/4 for every input: no attack on it is possible.

    The input shifts the draws, so every image has its own noise.
    """

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()

    def forward(self, x):
        light = x.flatten(1)
        label = (light[:, 0] > 0.5).float()  # below eps 0.022 no attack changes that
        draw = self.random.uniform(light[:, :1], dim=0)[:, 0] + 997 * light.sum(1)
        score = (label + (draw % 1 < 0.25).float()) % 2 - 0.5 + 0 * light.sum(1)
        return torch.stack([-score, score], 1)
