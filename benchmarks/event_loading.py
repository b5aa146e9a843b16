"""Recordings and megabytes a second of ``EventSet.batch``, beside two plain loaders.

All three read the same N-MNIST files to the same frames: "add.at" with ``np.fromfile`` and
``np.add.at``, "loop" one event after the other. Rounds are interleaved; medians are printed.

python benchmarks/event_loading.py --data-root data
"""

import argparse
import statistics
import time

import numpy as np
import torch

from spikeguard.data.datasets import load
from spikeguard.data.events.framing import Framing

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--data-root", default=None)
parser.add_argument("--batch", type=int, default=50)
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--T", type=int, default=10)
parser.add_argument("--size", type=int, default=34)
args = parser.parse_args()

framing = Framing(T=args.T, values="counts", size=(args.size, args.size))
data = load("nmnist", args.data_root, framing=framing, val_fraction=0).train
data = data.subset(slice(args.batch))
megabytes = sum(place.path.stat().st_size for place in data.places) / 1e6


def columns(path):
    """Return time, column, row and polarity; no check of any kind."""
    raw = np.fromfile(path, np.uint8).astype(np.int64).reshape(-1, 5)
    t = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    return t, raw[:, 0], raw[:, 1], raw[:, 2] >> 7


def add_at():
    frames = np.zeros((len(data), args.T, 2, args.size, args.size), np.float32)
    for row, place in zip(frames, data.places, strict=True):
        t, x, y, p = columns(place.path)
        step = (t - t[0]) * args.T // (t[-1] - t[0] + 1)
        np.add.at(row, (step, p, y * args.size // 34, x * args.size // 34), 1)
    return torch.from_numpy(frames)


def loop():
    frames = np.zeros((len(data), args.T, 2, args.size, args.size), np.float32)
    for row, place in zip(frames, data.places, strict=True):
        t, x, y, p = (each.tolist() for each in columns(place.path))
        first, length = t[0], t[-1] - t[0] + 1
        for k in range(len(t)):
            step = (t[k] - first) * args.T // length
            row[step, p[k], y[k] * args.size // 34, x[k] * args.size // 34] += 1
    return torch.from_numpy(frames)


loaders = {"EventSet": lambda: data.batch(slice(None))[0], "add.at": add_at, "loop": loop}
seconds = {name: [] for name in loaders}
for _ in range(args.rounds):
    found = []
    for name, loader in loaders.items():
        start = time.perf_counter()
        found.append(loader())
        seconds[name].append(time.perf_counter() - start)
    assert all(torch.equal(found[0], other) for other in found[1:])

own = seconds["EventSet"]
print(f"{len(data)} recordings, {megabytes:.2f} MB, T={args.T}, medians of {args.rounds} rounds")
for name, times in seconds.items():
    took = statistics.median(times)
    ratio = statistics.median(a / b for a, b in zip(times, own, strict=True))
    print(
        f"{name:<10} {len(data) / took:>9.0f} recordings/s {megabytes / took:>8.1f} MB/s"
        f" {ratio:>7.2f} x the time of EventSet"
    )
