"""Average pooling fused into the membrane kernel, beside separate pooling: milliseconds.

python benchmarks/inside.py

One thread. A forward pass, an attack gradient and a training step of three small networks. Each is
timed with both kinds of pooling in every round, so that load affects both; numbers are medians.
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from unittest.mock import patch

import torch
from torch import nn

from spikeguard.attacks import Backprop, cross_entropy, frozen
from spikeguard.models import CNN, VGG11
from spikeguard.rng import stream
from spikeguard.system.allocator import keep_freed_memory

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--rounds", type=int, default=15)
args = parser.parse_args()

torch.set_num_threads(1)
keep_freed_memory()
NETWORKS = {
    "CNN, width 8, 28 x 28": (CNN, (1, 28), {"width": 8, "hidden": 128}, 128),
    "CNN, width 16, 32 x 32": (CNN, (3, 32), {"width": 16, "hidden": 128}, 32),
    "VGG-11, half width": (VGG11, (3, 32), {"width": 0.5}, 8),
}


def passes(model, x, y):
    """Return the timed passes: name, function, and whether the model is frozen for it."""

    def forward():
        with torch.no_grad():
            model(x)

    def train():
        model.train()
        nn.functional.cross_entropy(model(x), y).backward()
        model.zero_grad()
        model.eval()

    gradient = Backprop()
    return [
        ("forward", forward, True),
        ("gradient", lambda: gradient(model, x, y, cross_entropy), True),
        ("training", train, False),
    ]


print(f"{'':<26}{'pass':<10}{'apart':>8}{'fused':>8}{'ratio':>8}")
for name, (build, (channels, side), options, batch) in NETWORKS.items():
    model = build(channels, 10, T=4, image_size=side, **options, generator=stream(0, "w"))
    x = torch.rand(batch, channels, side, side, generator=stream(0, "x"))
    y = torch.arange(batch) % 10
    model(x)
    for what, run, alone in passes(model.eval(), x, y):
        times = {True: [], False: []}
        with frozen(model) if alone else nullcontext():
            for _ in range(args.rounds + 2):
                for inside, taken in times.items():
                    apart = patch("spikeguard.neurons.base.averages", lambda *_: False)
                    with nullcontext() if inside else apart:
                        start = time.perf_counter()
                        run()
                        taken.append(1e3 * (time.perf_counter() - start))
        inside, behind = (statistics.median(times[way][2:]) for way in (True, False))
        print(
            f"{name:<26}{what:<10}{behind:>8.1f}{inside:>8.1f}{behind / inside:>8.2f}", flush=True
        )
