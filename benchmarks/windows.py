"""Compiled 2 x 2 average pooling beside that of torch: milliseconds forward and backward.

python benchmarks/windows.py

Channels last, one thread. Each pass is timed once in every round, so that load on the machine
affects all of them; the numbers are medians.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from spikeguard.kernels.cpu import pooling as windows
from spikeguard.rng import stream

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--rounds", type=int, default=25)
parser.add_argument("--images", type=int, default=512)
args = parser.parse_args()

torch.set_num_threads(1)
layer, last = nn.AvgPool2d(2), torch.channels_last
print(f"{'C x H x W':<14}{'torch':>8}{'ours':>8}{'ratio':>8}{'back':>8}{'ours':>8}{'ratio':>8}")
for channels, side in ((8, 28), (16, 14), (8, 32), (32, 16), (64, 16), (128, 8)):
    x = torch.randn(args.images, channels, side, side, generator=stream(0, "x"))
    x = x.contiguous(memory_format=last)
    grad = torch.randn(layer(x).shape, generator=stream(0, "g")).contiguous(memory_format=last)
    assert windows.can_pool(x, layer), "the CPU kernel is not available"

    def torch_back(grad=grad, x=x):
        rest = ([2, 2], [2, 2], [0, 0], False, True, None)
        return torch.ops.aten.avg_pool2d_backward(grad, x, *rest)

    passes = [
        lambda x=x: layer(x),
        lambda x=x: windows.pool(x, layer),
        torch_back,
        lambda grad=grad: windows.unpool(grad, layer),
    ]
    times: list[list[float]] = [[] for _ in passes]
    for _ in range(args.rounds + 2):
        for each, run in zip(times, passes, strict=True):
            start = time.perf_counter()
            run()
            each.append(1e3 * (time.perf_counter() - start))
    theirs, ours, back, our_back = (statistics.median(each[2:]) for each in times)
    print(
        f"{f'{channels} x {side} x {side}':<14}{theirs:>8.2f}{ours:>8.2f}{theirs / ours:>8.1f}"
        f"{back:>8.2f}{our_back:>8.2f}{back / our_back:>8.1f}"
    )
