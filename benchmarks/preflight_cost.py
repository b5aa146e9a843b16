"""Cost of the check before an evaluation, and how often it stops or warns on trained networks.

    python benchmarks/preflight_cost.py RUN [RUN ...] [--windows 12]

Each window is 32 test images; window k checks with seed k and the attacks of suite "snn".
"""

import argparse
import time

import torch

from spikeguard.attacks import suite
from spikeguard.preflight.quick import quick_check
from spikeguard.runs.run import Run

EPS = 8 / 255

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("runs", nargs="+")
parser.add_argument("--windows", type=int, default=12)
parser.add_argument("--data-root")
args = parser.parse_args()
torch.set_num_threads(1)
attacks = suite("snn", eps=EPS)
for path in args.runs:
    run = Run.load(path, data_root=args.data_root)
    stopped = warned = 0
    began = time.process_time()
    for window in range(args.windows):
        x, y = run.data.test.batch(slice(32 * window, 32 * window + 32))
        try:
            warned += bool(quick_check(run.model, x, y, attacks.values(), seed=window))
        except ValueError:
            stopped += 1
    each = (time.process_time() - began) / args.windows
    x, y = run.data.test.batch(slice(100))
    began = time.process_time()
    suite("papers", eps=EPS)["pgd40"](run.model, x, y)
    beside = time.process_time() - began
    print(
        f"{path}: {each:.3f} CPU s, stopped {stopped} and warned {warned} of {args.windows}; "
        f"PGD-40 on 100 images {beside:.2f} CPU s"
    )
