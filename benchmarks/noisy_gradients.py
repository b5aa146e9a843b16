"""Time of an input gradient of a network with noise: compiled numbers and mean field, or torch's.

python benchmarks/noisy_gradients.py

VGG5 at a quarter of the width, T = 4, untrained, 64 random images, one thread, CPU time, medians of
15 interleaved rounds. Everything but the compared part is the same: convolutions, compiled
recurrence, pooling.
"""

import statistics
import time

import torch

from spikeguard.attacks import Backprop, MeanField, crafting
from spikeguard.attacks.losses import margin
from spikeguard.kernels import mean_field as recurrence
from spikeguard.kernels.cpu import random_numbers
from spikeguard.models import VGG5
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import stream

ROUNDS = 15


class InTorch(NoisyLIF):
    """A layer whose probabilities autograd differentiates, pooled in a pass of its own."""

    def averages(self, layer, x):
        return False

    def forward(self, current, **options):
        recurrence.default_kernel = lambda device: "reference"
        try:
            return super().forward(current, **options)
        finally:
            recurrence.default_kernel = default


torch.set_num_threads(1)
x = torch.rand(64, 3, 32, 32, generator=stream(0, "x"))
y = torch.arange(64) % 10
compiled, default = random_numbers.available, recurrence.default_kernel
model, other = (VGG5(T=4, width=0.25, neuron=neuron()) for neuron in (NoisyLIF, InTorch))
cases = {
    "backprop, numbers by torch": (model, Backprop(), lambda device: False),
    "backprop, compiled numbers": (model, Backprop(), compiled),
    "mean field by torch": (other, MeanField(), compiled),
    "mean field, compiled": (model, MeanField(), compiled),
}
found = {name: [] for name in cases}
for _ in range(ROUNDS + 1):
    for name, (network, gradient, random_numbers.available) in cases.items():
        with crafting(network, x, y, stream(0, "noise")):
            started = time.process_time()
            gradient(network, x, y, margin)
            found[name].append(1e3 * (time.process_time() - started))
for name, times in found.items():
    print(f"{name:<28}{statistics.median(times[1:]):7.1f} ms a gradient of 64 images")
