"""Which search finds images that no other finds: each alone, on what two searches left.

    OMP_NUM_THREADS=1 python benchmarks/searches_alone.py runs/mini/cifar10-at8 --eps 8/255 \\
        --first 100 --last 300 --data-root data
    OMP_NUM_THREADS=1 python benchmarks/searches_alone.py masked --eps 0.1 --last 200

Two searches run first: SA-PGD with ASSG(0.45) for 300 steps, without and with the path through
time. Then each search has the same gradients per sample (a query counts a third) on the images that
are left, and starts anew on each. The last column holds the images that it alone found. Seconds are
CPU seconds of one thread. A network is a run folder, or a reference network by name.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from spikeguard.attacks import APGD, HART, RGA, SAPGD, Attack, Linf, Square, SwapSurrogate
from spikeguard.attacks.base import cost
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import BACKPROP, Gradient
from spikeguard.attacks.losses import Loss, cross_entropy, margin
from spikeguard.attacks.model_access import crafting
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.attacks.searches.nearest import Nearest
from spikeguard.neurons import Triangular
from spikeguard.rng import SampleStreams
from spikeguard.runs.run import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from peers import networks as reference

BATCH, STEPS = 128, 300
SHARPNESS = (0.42, 0.40, 0.43, 0.38, 0.45)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("network")
parser.add_argument("--eps", type=Fraction, required=True)
parser.add_argument("--first", type=int, default=0)
parser.add_argument("--last", type=int, required=True)
parser.add_argument("--budget", type=int, default=600, help="gradients per sample, each search")
parser.add_argument("--searches", nargs="+")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data-root", default="data")


def searches(threat: Linf, budget: int) -> dict[str, Callable[[int], Attack]]:
    """Return, by name, the attack of each use of a search."""

    def sharp(loss: Loss = cross_entropy, **path: bool) -> Callable[[int], Attack]:
        return lambda use: SAPGD(
            threat, steps=STEPS, loss=loss, gradient=ASSG(SHARPNESS[use % 5], **path)
        )

    def plain(gradient: Gradient) -> Callable[[int], Attack]:
        return lambda use: SAPGD(threat, steps=STEPS, gradient=gradient)

    def auto(loss: Loss) -> Callable[[int], Attack]:
        return lambda use: APGD(
            threat, steps=STEPS, loss=loss, gradient=ASSG(SHARPNESS[use % 5], temporal=False)
        )

    def targeted(temporal: bool) -> Callable[[int], Attack]:
        steps = budget // 18 - 2
        return lambda use: APGD(
            threat, steps=steps, targets=9, gradient=ASSG(SHARPNESS[use % 5], temporal)
        )

    return {
        "assg-cut": sharp(temporal=False),
        "assg-cut/margin": sharp(margin, temporal=False),
        "assg-leak": sharp(reset=False),
        "assg-leak/margin": sharp(margin, reset=False),
        "assg": sharp(),
        "assg/margin": sharp(margin),
        "climb": lambda use: LocalClimb(threat, 3 * budget // 2),
        "apgd/assg-cut": auto(cross_entropy),
        "apgd/assg-cut/margin": auto(margin),
        "apgd-t/assg-cut": targeted(temporal=False),
        "apgd-t/assg": targeted(temporal=True),
        "square": lambda use: Square(threat, queries=3 * budget),
        "own": plain(BACKPROP),
        "width0.5": plain(SwapSurrogate(Triangular(0.5))),
        "width2": plain(SwapSurrogate(Triangular(2.0))),
        "rga": plain(RGA()),
        "hart": plain(HART(0.5)),
    }


def load(name: str, first: int, last: int, root: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network, images and labels."""
    if name in reference.STRONGEST:
        model, record = reference.load(name)
        return model.eval(), record["x"][first:last], record["y"][first:last]
    run = Run.load(name, data_root=root)
    x, y = run.data.test.batch(torch.arange(first, last))
    return run.model.eval(), x, y


@torch.no_grad()
def fooled(model: nn.Module, points: Tensor, y: Tensor) -> Tensor:
    """Return which points the model misclassifies [B]."""
    parts = zip(points.split(BATCH), y.split(BATCH), strict=True)
    return torch.cat([model(part).argmax(1) != labels for part, labels in parts])


def search(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, streams: SampleStreams, near: Nearest
) -> Tensor:
    """Return which samples an attack fools [B]; a climb starts from the nearest points."""

    def judge(points: Tensor, rows: Tensor) -> Tensor:
        return (~fooled(model, points, y[rows])).double()

    if isinstance(attack, LocalClimb):
        with crafting(model, x, y, streams) as inner:
            found = attack.climb(model, x, y, near.points, inner, batch_size=2 * BATCH).points
        return fooled(model, found, y)
    _, shares = active_set(
        attack, model, x, y, streams=streams, batch_size=BATCH, judge=judge, nearest=near
    )  # type: ignore[arg-type]
    return shares == 0


def main() -> None:
    args = parser.parse_args()
    torch.set_num_threads(1)
    threat = Linf(float(args.eps))
    model, x, y = load(args.network, args.first, args.last, args.data_root)
    ids, right = torch.arange(args.first, args.last), ~fooled(model, x, y)
    x, y, ids, near = x[right], y[right], ids[right], Nearest.of(x[right])
    print(f"{args.network}: {len(x)} of {len(right)} right")
    for k, temporal in enumerate((False, True)):
        start = time.process_time()
        attack = SAPGD(threat, steps=STEPS, gradient=ASSG(0.45, temporal))
        streams = SampleStreams(args.seed, ids).fork("base", k)
        stay = ~search(attack, model, x, y, streams, near)
        x, y, ids = x[stay], y[stay], ids[stay]
        near = Nearest(near.points[stay], near.margin[stay])
        took = time.process_time() - start
        print(f"{'through time' if temporal else 'cut in time':<22}{len(x):>4} left {took:>6.1f} s")
    found: dict[str, tuple[set[int], float]] = {}
    for name, build in searches(threat, args.budget).items():
        if args.searches and name not in args.searches:
            continue
        start, spent, use = time.process_time(), 0.0, 0
        left = torch.arange(len(x))
        while spent < args.budget - 20 and len(left):
            attack, streams = build(use), SampleStreams(args.seed, ids[left]).fork(name, use)
            seen = Nearest(near.points[left], near.margin[left].clone())
            left = left[~search(attack, model, x[left], y[left], streams, seen)]
            spent, use = spent + cost(attack), use + 1
        hits = set(ids.tolist()) - set(ids[left].tolist())
        found[name] = hits, time.process_time() - start
    for name, (hits, took) in found.items():
        others = set().union(*(more for other, (more, _) in found.items() if other != name))
        print(f"{name:<22}{len(hits):>4} found{took:>6.1f} s   alone {sorted(hits - others)}")
    union = set().union(*(hits for hits, _ in found.values())) if found else set()
    print(f"{'all together':<22}{len(union):>4} found of {len(ids)}")


if __name__ == "__main__":
    main()
