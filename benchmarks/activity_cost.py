"""Cost of counting spikes and synaptic operations, in turns with a plain forward pass.

    python benchmarks/activity_cost.py [--rounds 21]

Processor time of one thread, divided by that of the plain pass of the same round: medians with
95 % intervals. "again" is the plain pass itself.
"""

import argparse
from contextlib import ExitStack

import torch

from spikeguard.analysis import count_operations, count_spikes
from spikeguard.analysis.overhead import time_ratios
from spikeguard.models import CNN, MLP, VGG11, WRN16_4, SEWResNet
from spikeguard.neurons import record
from spikeguard.rng import stream
from spikeguard.system.intervals import median_interval

NETWORKS = {
    "mlp 784-256-128, T 8": (lambda: MLP(784, 10, 8), (64, 784)),
    "cnn w16 on 8x8, T 4": (lambda: CNN(1, 10, 4, width=16, image_size=8), (64, 1, 8, 8)),
    "cnn w8 on 28x28, T 4": (lambda: CNN(1, 10, 4, width=8), (64, 1, 28, 28)),
    "vgg11 / 8, T 8": (lambda: VGG11(3, 10, 8, width=1 / 8), (32, 3, 32, 32)),
    "sew18 / 8 cifar, T 4": (
        lambda: SEWResNet(3, 10, 4, width=1 / 8, stem="cifar"),
        (16, 3, 32, 32),
    ),
    "wrn16 / 4, T 4": (lambda: WRN16_4(3, 10, 4, width=1 / 4), (8, 3, 32, 32)),
}
parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--rounds", type=int, default=21)
args = parser.parse_args()
torch.set_num_threads(1)

for name, (build, shape) in NETWORKS.items():
    model, x = build(), torch.rand(shape, generator=stream(0, "x"))
    model(x)  # statistics of normalisation
    model.eval()
    with torch.no_grad():

        def plain(model=model, x=x):
            model(x)

        def counted(*counters, model=model, x=x, **options):
            with ExitStack() as counting:
                for counter in counters:
                    counting.enter_context(counter(model, **options))
                model(x)

        ways = {
            "again": plain,
            "spikes": lambda: counted(count_spikes),
            "each neuron": lambda: counted(count_spikes, each_neuron=True),
            "spikes and operations": lambda: counted(count_spikes, count_operations),
            "record": lambda: counted(record),
        }
        cells = []
        for way, run in ways.items():
            times = time_ratios(run, plain, rounds=args.rounds)
            middle, low, high = median_interval((times[:, 0] / times[:, 1]).tolist())
            cells.append(f"{way} {middle:.2f} [{low:.2f}, {high:.2f}]")
    print(f"{name}: {', '.join(cells)}", flush=True)
