"""Event grids of moving bars, a network that tells their directions, and attacks compared on it.

    python -m tests.toys.moving_events SEED "edits budget=10"

prints for each attack how many of up to 100 correctly classified grids it fools, and its cost.
"""

import sys

import torch
from torch import nn

from spikeguard.attacks import (
    ASSG,
    PGD,
    SDA,
    EventGreedy,
    RawEvents,
    SpikeCompatible,
    SpikeFool,
    SpikeRetiming,
    UniformNoise,
    cost,
    parse_threat,
    threat_of,
)
from spikeguard.neurons import LIF
from spikeguard.rng import SampleStreams, stream

__all__ = ["Directions", "compared", "moving_bars", "trained_on_bars"]

BINS, SIZE = 5, 8
_STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def moving_bars(n, seed):
    """Return grids [n, 5, 2, 8, 8] of a bar of three pixels with 2 % noise, and directions [n].

    The front of the bar gives ON events (channel 1), its back OFF events.
    """
    generator = stream(seed, "bars")
    x, y = torch.zeros(n, BINS, 2, SIZE, SIZE), torch.randint(0, 4, (n,), generator=generator)
    for i, label in enumerate(y.tolist()):
        row, column = torch.randint(0, SIZE, (2,), generator=generator).tolist()
        down, right = _STEPS[label]
        for t in range(BINS):
            for k in range(3):
                r = (row + down * t + (k if right else 0)) % SIZE
                c = (column + right * t + (k if down else 0)) % SIZE
                x[i, t, 1, r, c], x[i, t, 0, (r - down) % SIZE, (c - right) % SIZE] = 1, 1
    x += (torch.rand(x.shape, generator=generator) < 0.02) * (x.sum(2, keepdim=True) == 0)
    x[:, :, 0] *= 1 - x[:, :, 1]
    return x, y


class Directions(nn.Module):
    """Two convolutions with spiking neurons and a linear readout, averaged over time."""

    def __init__(self, seed):
        super().__init__()
        self.first = nn.Conv2d(2, 12, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.neurons = nn.ModuleList([LIF(0.5, v_th=0.5), LIF(0.5, v_th=0.5)])
        self.readout = nn.Linear(16 * 16, 4)
        for p in self.parameters():
            fan = p[0].numel() if p.ndim > 1 else 100
            p.data = torch.randn(p.shape, generator=stream(seed, "w", *p.shape)) / fan**0.5

    def forward(self, x):
        z = x.transpose(0, 1)
        for layer, neuron in zip((self.first, self.second), self.neurons, strict=True):
            z = neuron(layer(z.flatten(0, 1)).unflatten(0, z.shape[:2]))
        return self.readout(z.flatten(2).mean(0))


def trained_on_bars(seed):
    """Return the network after eight epochs of Adam on 1,500 grids."""
    model, (x, y) = Directions(seed), moving_bars(1500, seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(8):
        for batch in torch.randperm(1500, generator=stream(seed, "order", epoch)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model.eval()


def compared(threat):
    """Return the attacks of the comparison that the threat set allows."""
    if threat.norm.startswith("retiming"):
        return {
            "noise": UniformNoise(threat),
            "pgd40": PGD(threat, steps=40),
            "retiming": SpikeRetiming(threat),
            "retiming/assg": SpikeRetiming(threat, gradient=ASSG()),
            "retiming, 5 restarts": SpikeRetiming(threat, restarts=5),
        }
    return {
        "noise": UniformNoise(threat),
        "pgd40": PGD(threat, steps=40),
        "greedy": EventGreedy(threat),
        "spike-compatible": SpikeCompatible(threat),
        "sda": SDA(threat),
        "spikefool": SpikeFool(threat),
        "raw-events": RawEvents(threat),
        "greedy/assg": EventGreedy(threat, gradient=ASSG()),
        "spike-compatible/assg": SpikeCompatible(threat, gradient=ASSG()),
    }


def main(seed, line):
    model, threat = trained_on_bars(seed), threat_of(*parse_threat(line))
    x, y = moving_bars(100, 1000 + seed)
    right = (model(x).argmax(1) == y).nonzero()[:, 0]
    x, y = x[right], y[right]
    print(f"seed {seed}, {line}: {len(right)} of 100 grids are classified correctly")
    for name, attack in compared(threat).items():
        streams, soft = SampleStreams(seed, right), ""
        if hasattr(attack, "with_record"):
            found, record = attack.with_record(model, x, y, generator=streams)
            soft = f", soft {int(record['soft'].sum())}"
        else:
            found = attack(model, x, y, generator=streams)
        fooled = int((model(found).argmax(1) != y).sum())
        print(f"{name:22s} cost {cost(attack):6.0f}  fooled {fooled}{soft}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
