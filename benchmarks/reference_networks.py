"""Suites standard and snn on three networks that independent code trained and attacked.

"strongest" is the lowest known accuracy of a network, over all 200 images whatever --limit is.

OMP_NUM_THREADS=1 python benchmarks/reference_networks.py
OMP_NUM_THREADS=1 python benchmarks/reference_networks.py --suites snn --networks adversarial
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from spikeguard.attacks import suite
from spikeguard.evaluation.evaluator import evaluate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from peers.networks import EPS, FOLDER, STRONGEST, load

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--networks", nargs="+", choices=STRONGEST, default=list(STRONGEST))
parser.add_argument("--suites", nargs="+", default=["standard", "snn"])
parser.add_argument("--limit", type=int, default=200)
parser.add_argument("--details", action="store_true", help="print the whole cascade too")
args = parser.parse_args()
if not FOLDER.is_dir():
    sys.exit(f"reference_networks: the three networks are not in {FOLDER}.")

torch.set_num_threads(1)
print(f"{'network':<12} {'suite':<9} {'ours':>7} {'AutoAttack':>11} {'strongest':>10} {'s':>5}")
for name in args.networks:
    model, record = load(name)
    data = record["x"], record["y"]
    stored = 100 * float(record["autoattack"][: args.limit].double().mean())
    for chosen in args.suites:
        start = time.perf_counter()
        result = evaluate(model, data, suite(chosen, eps=EPS), cascade=True, limit=args.limit)
        took = time.perf_counter() - start
        ours, strongest = 100 * result.worst_case.accuracy, 100 * STRONGEST[name]
        others = f"{stored:>9.1f} % {strongest:>8.1f} %"
        print(f"{name:<12} {chosen:<9} {ours:>5.1f} % {others} {took:>5.0f}")
        missed = (result.outcomes["worst_case"] > 0) & ~record["autoattack"][: args.limit]
        print(
            f"{'':<12} fooled by their AutoAttack, not by ours: {missed.nonzero()[:, 0].tolist()}"
        )
        if args.details:
            print(result.table(), flush=True)
