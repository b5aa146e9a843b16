"""Made event frames of moving dots, and a small network that has learned to tell them apart."""

from functools import cache

import torch
from torch import nn

from spikeguard.data import ImageSet, as_image_set
from spikeguard.encoders.event_frames import EventFrames
from spikeguard.models import CNN
from spikeguard.neurons import LIF
from spikeguard.rng import randomness, stream

T, CLASSES = 4, 4
_PATHS = ((1, 3, 1, 0), (3, 1, 0, 1), (6, 3, -1, 0), (3, 6, 0, -1))  # row, column, and their steps


def dots(n=40, seed=0) -> ImageSet:
    """Frames [N, 4, 2, 8, 8] of 0 and 1: a dot moves down, right, up or left; 3 % are noise."""
    x = (torch.rand(n, T, 2, 8, 8, generator=stream(seed, "dots")) < 0.03).to(torch.uint8)
    y = torch.arange(n) % CLASSES
    for i, label in enumerate(y.tolist()):
        row, column, down, right = _PATHS[label]
        for t in range(T):
            r, c = row + t * down, column + t * right
            x[i, t, 0, r - 1 : r + 1, c - 1 : c + 1] = 1
            x[i, t, 1, r : r + 2, c : c + 2] = 1
    return as_image_set((x, y), name="dots")


def untrained(neuron=None, **options):
    return CNN(
        *(2, CLASSES, T),
        width=4,
        hidden=12,
        image_size=8,
        neuron=LIF(0.5, v_th=0.5) if neuron is None else neuron,
        encoder=EventFrames(**options),
        generator=stream(0, "weights"),
    )


@cache
def _weights():
    model, (x, y) = untrained(), dots(80, seed=1).batch(slice(80))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    with randomness(model, stream(0, "train")):
        for _ in range(25):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.state_dict()


def trained():
    """Return a network in evaluation mode that has learned the dots."""
    model = untrained()
    model.load_state_dict(_weights())
    return model.eval()
