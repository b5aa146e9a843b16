"""A training step of a run, in turns with one of the plain network on cross-entropy.

    python benchmarks/training_overhead.py runs/demo/tgo runs/demo/at-tgo [--rounds 15]

The step of the run has its neurons, the terms of its objective and its attacks; the plain network
has the same layers with LIF neurons. Processor time of one thread, divided by that of the plain
step of the same round: the median with its 95 % interval.
"""

import argparse
import copy
from functools import partial

import torch

from spikeguard.analysis import plain_twin
from spikeguard.analysis.overhead import time_ratios
from spikeguard.config.builder import build
from spikeguard.defences.objective import Objective
from spikeguard.runs.run import Run
from spikeguard.system.intervals import median_interval
from spikeguard.training.engine import Engine
from spikeguard.training.learner import Learner
from spikeguard.training.state import TrainState

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("runs", nargs="+")
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--data-root")
args = parser.parse_args()
torch.set_num_threads(1)

for path in args.runs:
    run = Run.load(path, data_root=args.data_root)
    built = build(run.recipe, args.data_root)
    engine = Engine()
    index = torch.arange(built.options.batch_size)
    learners = [
        Learner.create(model, built.data, objective, built.options, engine)
        for model, objective in (
            (copy.deepcopy(run.model), built.objective),
            (plain_twin(run.model), Objective()),
        )
    ]
    steps = [partial(each.step, index, TrainState(), 1.0) for each in learners]
    times = time_ratios(*steps, rounds=args.rounds)
    middle, low, high = median_interval((times[:, 0] / times[:, 1]).tolist())
    print(
        f"{path}: {middle:.2f} [{low:.2f}, {high:.2f}] times a plain step of "
        f"{1e3 * float(torch.tensor(times[:, 1]).median()):.0f} ms"
    )
