"""Strength and cost of the mean-field gradient beside gradients averaged over draws (EoT).

python benchmarks/mean_field.py RUN:EPS [RUN:EPS ...] [--data-root DIR]

RUN is the folder of a training run of a noisy network. All attacks run in one process with one
thread, on the same test images; every result is scored on the same draws, which no search has seen.
"left" is the mean share of correct draws in percent, with the 95 % interval over images; "apart" is
the paired difference to the last row, APGD-CE with EoT 32, in points.

The suite "snn" (--budget gradients for an image that is left) searches on the mean field first,
then with EoT on the images not fooled on all of 40 draws; these draws also choose the worst point
of each image. The scores are on other draws.
"""

import argparse
import math
import time

import torch

from spikeguard.attacks import (
    APGD,
    PGD,
    Backprop,
    EoT,
    Linf,
    MeanField,
    classify,
    cross_entropy,
    evaluating,
    margin,
)
from spikeguard.attacks.model_access import DEFAULT_DRAWS
from spikeguard.attacks.searches.converging import CHOICE_DRAWS, Converging
from spikeguard.attacks.searches.search_state import SearchState
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.runs.run import Run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument(
    "run", nargs="+", help="FOLDER:EPS, eps as a number or a fraction such as 8/255"
)
parser.add_argument("--n", type=int, default=100, help="test images")
parser.add_argument("--draws", type=int, default=30, help="draws of every score")
parser.add_argument("--eot", type=int, default=32, help="draws of the averaged gradients")
parser.add_argument("--budget", type=float, default=2000, help="gradients of suite snn per image")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data-root", default=None)
args = parser.parse_args()
torch.set_num_threads(1)

MEAN, SUITE, LAST = "mean field, APGD-CE", "suite snn", f"APGD-CE, EoT {args.eot}"


def score(model, x, y, rows, name, draws):
    """Return the share of correct draws of each image [B]."""
    streams = SampleStreams(key(args.seed, "score", name), rows)
    with evaluating(model), randomness(model, streams), torch.no_grad():
        right = [(classify(model, x, y).argmax(1) == y).double() for _ in range(draws)]
    return torch.stack(right).mean(0)


def interval(values):
    """Return mean and half-width of the 95 % interval over images, in percent."""
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    return f"{100 * float(values.mean()):6.1f} +- {100 * half:.1f}"


def attack(name, search, model, x, y, rows):
    """Return the result of an attack and its CPU seconds."""
    streams = SampleStreams(key(args.seed, "attack", name), rows)
    started = time.process_time()
    return search(model, x, y, generator=streams), time.process_time() - started


def converging(model, x, y, threat):
    """Run the searches of suite "snn" within the budget; return their worst points and seconds."""

    def judge(points, rows):
        return score(model, points, y[rows], rows, "choice", CHOICE_DRAWS * DEFAULT_DRAWS)

    started, rows = time.process_time(), torch.arange(len(x))
    progress = SearchState.of(x, judge(x, rows))
    streams = SampleStreams(key(args.seed, "attack", "snn"), rows)
    search = Converging(threat, budget=args.budget)
    found = search.run(model, x, y, progress, streams, batch_size=len(x), judge=judge)
    print("  snn:", ", ".join(each.search for each in found.rounds), flush=True)
    return found.points, time.process_time() - started


def compare(folder, eps):
    """Print the table of one network."""
    run = Run.load(folder, data_root=args.data_root)
    model, threat, drawn = run.model, Linf(eps), EoT(args.eot, Backprop())
    rows = torch.arange(args.n)
    x, y = run.data.test.batch(rows)
    shares, seconds = {}, {}

    def report(name, points, took):
        shares[name], seconds[name] = score(model, points, y, rows, "report", args.draws), took
        print(f"{name:<28}{interval(shares[name]):>16}{took:>10.1f} s", flush=True)

    print(f"\n{folder}, Linf {eps:.4g}, {args.n} images, {args.draws} draws, seed {args.seed}")
    print(f"{'':<28}{'left, %':>16}{'CPU':>12}")
    report("clean", x, 0.0)
    for name, search in {
        MEAN: APGD(threat, loss=cross_entropy, gradient=MeanField()),
        "mean field, APGD-margin": APGD(threat, loss=margin, gradient=MeanField()),
        "PGD-40, EoT 4": PGD(threat, steps=40, gradient=EoT(4, Backprop())),
        f"PGD-40, EoT {args.eot}": PGD(threat, steps=40, gradient=drawn),
        LAST: APGD(threat, loss=cross_entropy, gradient=drawn),
    }.items():
        points, took = attack(name, search, model, x, y, rows)
        report(name, points, took)
    report(SUITE, *converging(model, x, y, threat))
    print(f"apart: the paired difference to {LAST}, points; cost: its CPU over the row's")
    for name in [name for name in shares if name not in ("clean", LAST)]:
        apart = interval(shares[name] - shares[LAST])
        print(f"{name:<28}{apart:>16}{seconds[LAST] / seconds[name]:>8.1f} x cheaper")
    other = f"PGD-40, EoT {args.eot}"
    apart = interval(shares[MEAN] - shares[other])
    print(f"{MEAN} against {other}: {apart}, {seconds[other] / seconds[MEAN]:.1f} x cheaper")


for text in args.run:
    where, _, radius = text.rpartition(":")
    top, _, bottom = radius.partition("/")
    compare(where, float(top) / float(bottom or 1))
