"""Cost of the gradients for spiking networks, as multiples of plain backpropagation.

python benchmarks/gradients.py

A small CNN on random images, one thread. Each gradient is timed once in every round, so that load
on the machine affects all of them; the ratio is that of the medians.
"""

import argparse
import statistics
import time

import torch

from spikeguard.attacks import ASSG, BPTR, HART, PDSG, RGA, Backprop, SwapSurrogate, cross_entropy
from spikeguard.attacks.gradients.base import start_search
from spikeguard.attacks.model_access import frozen
from spikeguard.kernels.selection import use_kernel, why_not
from spikeguard.models import CNN
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--batch-size", type=int, default=64)
args = parser.parse_args()

torch.set_num_threads(1)
model = CNN(1, 10, T=4, width=8, hidden=128, image_size=28, neuron=LIF(0.5)).eval()
x = torch.rand(args.batch_size, 1, 28, 28, generator=stream(0, "x"))
y = torch.arange(args.batch_size) % 10
gradients = {
    "backprop": Backprop(),
    "swapped surrogate": SwapSurrogate(Triangular(0.5)),
    "bptr": BPTR(),
    "rga": RGA(),
    "hart": HART(0.5),
    "pdsg": PDSG(),
    "assg": ASSG(),
}
print(f"{'kernel':<12}{'gradient':<20}{'ms':>8}{'x backprop':>12}")
for kernel in ("cpu", "multistep"):
    if why_not(kernel) is not None:
        print(f"{kernel:<12}{why_not(kernel)}")
        continue
    searches = {name: start_search(gradient) for name, gradient in gradients.items()}
    times: dict[str, list[float]] = {name: [] for name in gradients}
    with use_kernel(kernel), frozen(model):
        for _ in range(args.rounds + 2):
            for name, search in searches.items():
                start = time.perf_counter()
                search(model, x, y, cross_entropy)
                times[name].append(1e3 * (time.perf_counter() - start))
    plain = statistics.median(times["backprop"][2:])
    for name, each in times.items():
        took = statistics.median(each[2:])
        print(f"{kernel:<12}{name:<20}{took:>8.1f}{took / plain:>12.2f}")
