"""torch.compile around what lies between spiking layers, beside the package's own layers.

``python benchmarks/compiled_blocks.py`` prints medians of interleaved rounds on one thread, for a
forward and a backward pass. In "own" the convolution is the one of ``efficient_layers`` and batch
normalisation is computed inside the neuron's kernel. In "compiled" convolution and batch
normalisation are one compiled module and the neuron follows; "separate" is the same without
compilation.
"""

import statistics
import time

import torch
from torch import nn

from spikeguard.models.snn import TimeSequential
from spikeguard.neurons import LIF
from spikeguard.rng import stream

T, ROUNDS = 4, 9
CASES = {  # channels in and out, side, stride, batch
    "WRN-16-4, stage 1": (64, 64, 32, 1, 8),
    "WRN-16-4, stage 3": (256, 256, 8, 1, 8),
    "SEW-18, 64 pixels, stage 2": (64, 128, 64, 2, 4),
}


class Between(nn.Module):
    """Convolution and batch normalisation on [T B, C, H, W]."""

    def __init__(self, conv, norm):
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x):
        return self.norm(self.conv(x))


def variants(channels, out, stride):
    """Return the three ways, with the same weights."""
    conv, norm = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
    neuron, between = LIF(0.5), Between(conv, norm)
    own = TimeSequential(conv, norm, neuron)
    compiled = torch.compile(between)

    def apart(run):
        def call(x):
            y = run(x.flatten(0, 1))
            return neuron(y.view(*x.shape[:2], *y.shape[1:]))

        return call

    return {
        "own": lambda x: own(x, T),
        "separate": apart(between),
        "compiled": apart(compiled),
    }


def seconds(run, x):
    began = time.perf_counter()
    run(x).sum().backward()
    return time.perf_counter() - began


def main():
    torch.set_num_threads(1)
    print("| layers | own ms | separate ms | compiled ms | compiled / own |")
    print("| --- | --- | --- | --- | --- |")
    for name, (channels, out, side, stride, batch) in CASES.items():
        shape = (T, batch, channels, side, side)
        x = (torch.rand(shape, generator=stream(0, "x")) < 0.2).float().requires_grad_()
        runs = variants(channels, out, stride)
        for run in runs.values():
            for _ in range(2):
                seconds(run, x)
        took = {each: [] for each in runs}
        for _ in range(ROUNDS):
            for each, run in runs.items():
                took[each].append(seconds(run, x))
        ms = {each: 1000 * statistics.median(found) for each, found in took.items()}
        print(
            f"| {name} | {ms['own']:.1f} | {ms['separate']:.1f} | {ms['compiled']:.1f} | "
            f"{ms['compiled'] / ms['own']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
