"""Accuracy of a noisy network under PGD-40 with 1, 3 and 20 averaged gradients a step.

python benchmarks/averaging.py runs/demo/tgo 0.1
"""

import argparse
from pathlib import Path

from spikeguard.attacks import PGD, EoT, Linf, SwapSurrogate
from spikeguard.config.instantiate import parse_number
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.neurons import Triangular
from spikeguard.runs.run import Run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("run", type=Path)
parser.add_argument("eps", help="radius, for example 8/255")
parser.add_argument("--limit", type=int, default=100)
parser.add_argument("--data-root", type=Path)
args = parser.parse_args()

run = Run.load(args.run, data_root=args.data_root)
threat = Linf(float(str(parse_number(args.eps))))
attacks = {
    "pgd40/eot1": PGD(threat, 40),
    "pgd40/eot3": PGD(threat, 40, gradient=EoT(3)),
    "pgd40/eot20": PGD(threat, 40, gradient=EoT(20)),
    "pgd40/eot20/width2": PGD(threat, 40, gradient=EoT(20, SwapSurrogate(Triangular(2.0)))),
}
print(evaluate(run.model, run.data.test, attacks, limit=args.limit, seed=run.recipe.seed).table())
