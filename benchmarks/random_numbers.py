"""Time of one random number of per-sample streams, compiled and by torch, beside torch's generator.

python benchmarks/random_numbers.py

One thread, CPU time, medians of 15 interleaved rounds, 64 streams of 65,536 numbers each.
"""

import statistics
import time

import torch

from spikeguard.kernels import splitmix
from spikeguard.kernels.cpu import random_numbers
from spikeguard.rng import stream

STREAMS, COUNT, ROUNDS = 64, 1 << 16, 15

torch.set_num_threads(1)
state = torch.arange(STREAMS).mul_(splitmix.GOLDEN)
out = torch.empty(STREAMS, COUNT)
compiled = random_numbers.available
ways = {"compiled": compiled, "torch": lambda device: False}
assert compiled(out.device), "the CPU kernel is not compiled here"


def taken(draw):
    started = time.process_time()
    draw()
    return time.process_time() - started


def own(draw, way):
    def run():
        random_numbers.available = ways[way]
        draw()

    return run


generator = stream(0, "benchmark")
draws = {
    "torch.randn": lambda: torch.randn(out.shape, generator=generator, out=out),
    "torch.rand": lambda: torch.rand(out.shape, generator=generator, out=out),
}
for way in ways:
    draws[f"normal, {way}"] = own(lambda: splitmix.normal_(out, state, 0), way)
    draws[f"uniform, {way}"] = own(lambda: splitmix.uniform(state, 0, COUNT), way)

found = {name: [] for name in draws}
for _ in range(ROUNDS):
    for name, draw in draws.items():
        found[name].append(taken(draw) * 1e9 / out.numel())
for name, times in found.items():
    print(f"{name:<18}{statistics.median(times):6.2f} ns a number")
