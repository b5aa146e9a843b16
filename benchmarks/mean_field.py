"""Strength and cost of MeanField against gradients averaged over draws (EoT), on noisy networks.

python benchmarks/mean_field.py RUN:EPS [RUN:EPS ...] [--data-root DIR]

RUN is the folder of a training run. All attacks run side by side in one process with one thread, on
the same test images; every result is scored on the same fresh draws. "left" is the share of correct
draws in percent, "apart" the paired difference to the last attack with its 95 % interval over
images, in points. The union takes, for each image, the mean-field result with fewest correct draws
and scores it again on other draws.
"""

import argparse
import math
import time

import torch

from spikeguard.attacks import (
    APGD,
    PGD,
    SAPGD,
    Backprop,
    EoT,
    Linf,
    MeanField,
    classify,
    cross_entropy,
    dlr,
    evaluating,
    margin,
)
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.runs.run import Run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("run", nargs="+", help="FOLDER:EPS")
parser.add_argument("--n", type=int, default=100, help="test images")
parser.add_argument("--draws", type=int, default=30, help="fresh draws of every score")
parser.add_argument("--eot", type=int, default=32, help="draws of the averaged gradient")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data-root", default=None)
args = parser.parse_args()
torch.set_num_threads(1)


def score(model, x, y, name):
    """Return the share of correct draws of each image [B]."""
    streams = SampleStreams(key(args.seed, "score", name), torch.arange(len(x)))
    with evaluating(model), randomness(model, streams), torch.no_grad():
        right = [(classify(model, x, y).argmax(1) == y).double() for _ in range(args.draws)]
    return torch.stack(right).mean(0)


def interval(values):
    """Return mean and half-width of the 95 % interval over images, in percent."""
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    return f"{100 * float(values.mean()):6.1f} +- {100 * half:.1f}"


def attacks(threat):
    field, drawn = MeanField(), EoT(args.eot, Backprop())
    return {
        "PGD-40, EoT 3": PGD(threat, steps=40, gradient=EoT(3, Backprop())),
        "mean field, PGD-40": PGD(threat, steps=40, gradient=field),
        "mean field, APGD-CE": APGD(threat, loss=cross_entropy, gradient=field),
        "mean field, APGD-DLR": APGD(threat, loss=dlr, gradient=field),
        "mean field, APGD-margin": APGD(threat, loss=margin, gradient=field),
        "mean field, SA-PGD-CE": SAPGD(threat, gradient=field),
        "mean field, SA-PGD-margin": SAPGD(threat, loss=margin, gradient=field),
        f"APGD-CE, EoT {args.eot}": APGD(threat, loss=cross_entropy, gradient=drawn),
    }


def unions(shares):
    """Return sets of mean-field attacks whose union is scored."""
    field = [name for name in shares if name.startswith("mean field")]
    apgd = [name for name in field if "APGD-CE" in name or "APGD-margin" in name]
    return {"CE + margin": apgd, "all mean field": field, "all": list(shares)}


for text in args.run:
    folder, _, eps = text.rpartition(":")
    run = Run.load(folder, data_root=args.data_root)
    model = run.model
    x, y = run.data.test.batch(torch.arange(args.n))
    shares, points, seconds = {}, {}, {}
    print(f"\n{folder}, Linf {float(eps):g}, {args.n} images, {args.draws} draws, seed {args.seed}")
    print(f"{'clean':<28}{interval(score(model, x, y, 'clean')):>16}", flush=True)
    for name, attack in attacks(Linf(float(eps))).items():
        streams = SampleStreams(key(args.seed, "attack", name), torch.arange(len(x)))
        started = time.process_time()
        points[name] = attack(model, x, y, generator=streams)
        seconds[name] = time.process_time() - started
        shares[name] = score(model, points[name], y, "attack")
        print(f"{name:<28}{interval(shares[name]):>16}{seconds[name]:>10.1f} s", flush=True)
    last = list(shares)[-1]
    print(f"paired difference to {last}, points")
    for name in list(shares)[:-1]:
        cheaper = seconds[last] / seconds[name]
        print(f"{name:<28}{interval(shares[name] - shares[last]):>16}{cheaper:>8.1f} x cheaper")
    for title, parts in unions(shares).items():
        lowest = torch.stack([shares[name] for name in parts]).argmin(0)
        stacked = torch.stack([points[name] for name in parts])
        again = score(model, stacked[lowest, torch.arange(len(x))], y, "union")
        took, apart = sum(seconds[name] for name in parts), again - score(model, points[last], y, "union")
        print(f"union: {title:<21}{interval(again):>16}{took:>10.1f} s  apart {interval(apart)}", flush=True)
