"""Stability of the verdict: quick audits of each network on windows of images, with other seeds.

    python benchmarks/verdict_stability.py --runs runs/demo --windows 20 --out stability

A window is the test set rotated to start at another image, so windows overlap. Window w is audited
with seeds w, w + 1, ..., as many as ``--seeds``. Networks are the three reference networks that
independent code trained, if they are on this machine, and every run in the folder ``--runs``. Each
audit is stored in ``--out``; a second call runs only those that are missing, and with ``--stored``
none. The table gives, for the bound and for the printed number, how often each judgement was made,
and the share of the audits with the most frequent pair of judgements, with its 95 % interval.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from peers.networks import EPS, FOLDER, STRONGEST, load
from spikeguard.attacks import Linf
from spikeguard.auditing.auditor import audit
from spikeguard.evaluation.estimates import Estimate
from spikeguard.runs.run import Run
from spikeguard.storage.atomic_files import write_json


def subject(name, runs):
    """Return a network by name, its test images and labels, and its surrogates of training."""
    if name in STRONGEST:
        model, record = load(name)
        return model, record["x"], record["y"], None
    run = Run.load(runs / name)
    return run.model.eval(), *run.data.test.batch(slice(None)), run.surrogates


def audits(name, args):
    """Yield the verdict of every window and seed of a network as plain data."""
    model, x, y, trained_with = subject(name, args.runs)
    for window in range(args.windows):
        start = window * len(x) // args.windows
        order = torch.arange(start, start + len(x)) % len(x)
        for seed in range(window, window + args.seeds):
            file = args.out / f"{name}-{start}-{seed}.json"
            if not file.exists() and not args.stored:
                began = time.process_time()
                verdict = audit(
                    model,
                    (x[order], y[order]),
                    threat=Linf(args.eps),
                    budget="quick",
                    seed=seed,
                    trained_with=trained_with,
                )
                write_json(file, verdict.to_json() | {"cpu": time.process_time() - began})
            if file.exists():
                yield json.loads(file.read_text(encoding="utf-8"))


def counted(values):
    """Return the values and how often each occurs, the most frequent first."""
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common())


def row(name, found):
    """Return the table row of a network, and the checks whose status was not always the same."""
    pairs = [(card["status"], card["printed"]["status"]) for card in found]
    most, n = Counter(pairs).most_common(1)[0][1], len(pairs)
    statuses = {}
    for card in found:
        for check in card["findings"]:
            statuses.setdefault(check["code"], []).append(check["status"])
    varied = "; ".join(
        f"{c}: {counted(said)}" for c, said in statuses.items() if len(set(said)) > 1
    )
    seconds = sum(card["cpu"] for card in found) / n
    bound, printed = (counted(judged) for judged in zip(*pairs, strict=True))
    cells = [name, str(n), bound, printed, str(Estimate.share(most, n)), f"{seconds:.0f}", varied]
    return "| " + " | ".join(cells) + " |"


def main():
    """Print the table of verdicts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="folder of trained runs")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each window")
    parser.add_argument("--eps", type=float, default=EPS)
    parser.add_argument("--out", type=Path, default=Path("verdict_stability"))
    parser.add_argument("--stored", action="store_true", help="run nothing, show what is stored")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    names = list(STRONGEST) if FOLDER.is_dir() else []
    if args.runs is not None:
        names += sorted(path.name for path in args.runs.iterdir() if path.is_dir())
    print("| network | audits | bound | printed | same verdict | CPU s each | checks that vary |")
    print("|---|---|---|---|---|---|---|")
    for name in args.networks or names:
        if found := list(audits(name, args)):
            print(row(name, found), flush=True)


if __name__ == "__main__":
    main()
