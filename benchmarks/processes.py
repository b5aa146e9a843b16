"""Gradients per second of a small network: threads or processes, freed memory kept or returned.

python benchmarks/processes.py

Each line is measured in fresh processes, `--rounds` times in turn. The best is shown, with the page
faults of one gradient (28 x 28 CNN, width 8, T = 4, batch 128).
"""

import argparse
import resource
import subprocess
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument(
    "--worker", nargs=3, metavar=("THREADS", "KEEP", "RULE"), help=argparse.SUPPRESS
)
args = parser.parse_args()


def work(threads, keep, rule):
    """Print gradients per second and page faults per gradient of this process."""
    import torch

    from spikeguard.attacks import ASSG, Backprop, cross_entropy, frozen
    from spikeguard.models import CNN
    from spikeguard.rng import stream
    from spikeguard.system.allocator import keep_freed_memory

    if keep == "kept":
        keep_freed_memory()
    torch.set_num_threads(int(threads))
    x = torch.rand(128, 1, 28, 28, generator=stream(0, "x"))
    model = CNN(1, 10, T=4, width=8, hidden=128, image_size=28, generator=stream(0, "w"))
    model(x)
    gradient = ASSG().begin() if rule == "ASSG" else Backprop()
    y, times = torch.arange(128) % 10, 60
    with frozen(model):
        for _ in range(10):
            gradient(model, x, y, cross_entropy)
        faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        for _ in range(times):
            gradient(model, x, y, cross_entropy)
        took = time.perf_counter() - start
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    print(128 * times / took, faults / times)


def measure(processes, threads, keep, rule):
    """Return gradients per second of all processes together, and page faults per gradient."""
    words = [sys.executable, __file__, "--worker", str(threads), keep, rule]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    found = [tuple(map(float, each.communicate()[0].split())) for each in started]
    return sum(speed for speed, _ in found), max(faults for _, faults in found)


if args.worker:
    work(*args.worker)
    sys.exit()
cases = [
    *((1, 1, keep, rule) for rule in ("backprop", "ASSG") for keep in ("returned", "kept")),
    *((processes, 3 - processes, "kept", "backprop") for processes in (1, 2)),
]
best = dict.fromkeys(cases, (0.0, 0.0))
for _ in range(args.rounds):
    for case in cases:
        best[case] = max(best[case], measure(*case))
head = f"{'processes':>10}{'threads':>9}  {'memory':<12}{'rule':<10}"
print(f"{head}{'gradients/s':>12}{'faults each':>13}")
for (processes, threads, keep, rule), (speed, faults) in best.items():
    print(f"{processes:>10}{threads:>9}  {keep:<12}{rule:<10}{speed:>12,.0f}{faults:>13,.0f}")
