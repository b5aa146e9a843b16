"""Stability of the verdict: quick audits of each network on windows of images, with several seeds.

    python benchmarks/verdict_stability.py --runs runs/demo --windows 20 --seeds 20 --out stability

A window is the test set rotated to start at another image, so windows overlap. Window w is audited
with seeds w, w + 1, ..., as many as ``--seeds``. Networks are the three reference networks that
independent code trained, if they are on this machine, and every run in the folder ``--runs``. Each
audit is stored in ``--out``; a second call runs only those that are missing.
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
            if not file.exists():
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
            yield json.loads(file.read_text(encoding="utf-8"))


def main():
    """Print the table of verdicts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="folder of trained runs")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20, help="seeds of each window")
    parser.add_argument("--eps", type=float, default=EPS)
    parser.add_argument("--out", type=Path, default=Path("verdict_stability"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    names = list(STRONGEST) if FOLDER.is_dir() else []
    if args.runs is not None:
        names += sorted(path.name for path in args.runs.iterdir() if path.is_dir())
    for name in args.networks or names:
        found = list(audits(name, args))
        verdicts = Counter(card["status"] for card in found)
        (_, most), n = verdicts.most_common(1)[0], len(found)
        seen: dict[str, Counter[str]] = {}
        for card in found:
            for check in card["findings"]:
                seen.setdefault(check["code"], Counter())[check["status"]] += 1
        varied = [
            f"{code} ({', '.join(f'{status} {count}' for status, count in counts.most_common())})"
            for code, counts in seen.items()
            if len(counts) > 1
        ]
        seconds = sum(card["cpu"] for card in found) / n
        said = ", ".join(f"{status} {count}" for status, count in verdicts.most_common())
        print(
            f"{name}: {said}; the same in {100 * most / n:.0f} % of {n}; {seconds:.0f} s CPU each"
        )
        print(f"    varied: {'; '.join(varied) or 'nothing'}", flush=True)


if __name__ == "__main__":
    main()
