"""Small evaluations with known answers: models, attacks, data, and equality of two results."""

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from spikeguard.attacks import PGD, Linf, UniformNoise
from spikeguard.models import CNN
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import RandomSource, stream

EPS = 0.2
#               right, by how much           wrong without an attack
PIXELS = [0.9, 0.65, 0.55, 0.1, 0.35, 0.45, 0.8, 0.2]
LABELS = [1, 1, 1, 0, 0, 0, 0, 1]


class Sign(nn.Module):
    """Predicts class 1 above 1/2: a sample is fooled by any shift across 1/2."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        score = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)


class Noisy(nn.Module):
    """Correct with probability 3/4 for any input; with ``sees_light``, 1/4 for a dark one.

    With ``shuffles`` the same draws are other numbers for another input.
    """

    stochastic = True

    def __init__(self, sees_light=False, shuffles=False):
        super().__init__()
        self.random = RandomSource()
        self.sees_light = sees_light
        self.shuffles = shuffles

    def forward(self, x):
        level = x.flatten(1).mean(1)
        p = (
            torch.where(level < 0.4, 0.25, 0.75)
            if self.sees_light
            else torch.full_like(level, 0.75)
        )
        drawn = self.random.uniform(level, dim=0)
        if self.shuffles:
            drawn = (97 * drawn + 1e5 * level.detach()).frac()
        right = (drawn < p).to(x.dtype)
        return torch.stack([right, 1 - right], 1) + 0 * x.flatten(1).sum(1, keepdim=True)


@dataclass(frozen=True)
class Shift:
    """Move every pixel by a constant."""

    by: float
    threat: Linf = field(default_factory=lambda: Linf(EPS))
    seen: list = field(default_factory=list, compare=False)

    def __call__(self, model, x, y, *, generator=None):
        self.seen.append(generator.ids.tolist())
        return (x + self.by).clamp(0, 1)


def pair(pixels=PIXELS, labels=LABELS):
    return torch.tensor(pixels).view(-1, 1, 1, 1).repeat(1, 1, 2, 2), torch.tensor(labels)


def spiking(sigma=0.0):
    neuron = NoisyLIF(0.5, sigma, v_th=0.3)
    model = CNN(1, 3, T=2, width=4, hidden=6, image_size=8, neuron=neuron, generator=stream(0, "w"))
    model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics")))
    return model.eval()


def same(one, other):
    assert one.outcomes.keys() == other.outcomes.keys()
    for name in one.outcomes:
        assert torch.equal(one.outcomes[name], other.outcomes[name]), name
    left, right = replace(one, seconds={}, outcomes={}), replace(other, seconds={}, outcomes={})
    assert torch.equal(left.labels, right.labels)
    assert torch.equal(left.index, right.index)
    for name in ("settings", "threat", "zero_gradient", "stochastic", "draws", "seed"):
        assert getattr(left, name) == getattr(right, name), name


def fragile(*dies_at):
    """Return two attacks, the second of which fails at the given calls, and its list of calls."""

    @dataclass(frozen=True)
    class Attack(PGD):
        def __call__(self, model, x, y, *, generator=None):
            calls.append(generator.ids.tolist())
            if len(calls) in dies_at:
                raise KeyboardInterrupt
            return super().__call__(model, x, y, generator=generator)

    calls = []
    return {"noise": UniformNoise(Linf(0.1)), "fragile": Attack(Linf(0.1), steps=2)}, calls
