"""Neurons whose potentials are known: every pixel is the current of one neuron."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from spikeguard.attacks import Linf


class Steps(nn.Module):
    """Feeds every pixel as a current, constant over T, to one neuron per pixel."""

    def __init__(self, neuron, T):
        super().__init__()
        self.neuron, self.T = neuron, T

    def forward(self, x):
        return self.neuron(x.expand(self.T, *x.shape)).mean(0).flatten(1)


def pixels(*values):
    """One image per value; the pixels of an image are a number or a tuple of them."""
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    x = torch.tensor(rows).view(len(rows), 1, 1, -1)
    return x, torch.zeros(len(values), dtype=torch.int64)


@dataclass(frozen=True)
class Swapped:
    """An attack that replaces pixel values by others, as a table says."""

    table: tuple[tuple[float, float], ...] = ()
    cost: ClassVar[float] = 1.0

    @property
    def threat(self):
        return Linf(1.0)

    def __call__(self, model, x, y, *, generator=None):
        out = x.clone()
        for before, after in self.table:
            out[x == before] = after
        return out


@dataclass(frozen=True)
class Negative:
    """An attack that returns 1 - x; twice, it returns the clean image."""

    cost: ClassVar[float] = 1.0

    @property
    def threat(self):
        return Linf(1.0)

    def __call__(self, model, x, y, *, generator=None):
        return 1 - x
