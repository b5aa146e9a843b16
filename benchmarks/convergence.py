"""Accuracy that the suite snn leaves against CPU seconds, beside AutoAttack's own code.

    OMP_NUM_THREADS=1 python benchmarks/convergence.py --autoattack PATH
    OMP_NUM_THREADS=1 python benchmarks/convergence.py --seeds 1 --networks demo/at --cascades

PATH is a checkout of AutoAttack (github.com/fra31/auto-attack); without it that column is not run.
Networks: demo/at, trained by ``spikeguard train demo/at --out runs/demo/at``, and the three
reference networks, where they are on this machine. For each seed AutoAttack and snn run one after
the other on the same images, in CPU seconds of one thread.

--calibrate NAME ... compares the estimate of a search with what ten times its gradients really
found, in the search of seed 0. NAME is a network as above, or any run folder in --runs. The search
goes on after its own end, without the rule for a flat curve.

Each measurement is stored in a file of --out as it finishes, and a search after every round. The
next call continues there; use a new folder when the code has changed.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks import Linf, suite
from spikeguard.attacks.model_access import classify, evaluating
from spikeguard.attacks.searches import converging
from spikeguard.attacks.searches.converging import Converging
from spikeguard.attacks.searches.search_state import Round, SearchState
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.search_record import merged_record
from spikeguard.kernels.selection import unfused
from spikeguard.rng import SampleStreams, key
from spikeguard.runs.run import Run
from spikeguard.storage.atomic_files import write_npz
from spikeguard.system.allocator import keep_freed_memory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
from convergence_tables import BARS, Row, print_calibration, print_network

from peers import networks as reference

SMALL = (500, 3000)  # gradients per sample from which an estimate is compared
BATCH = 250


def record_of(start: float, n: int, rounds: Sequence[Round], ended: str = "") -> Row:
    """Return the merged record of one search, with its curve and its estimate."""
    block = {"samples": n, "start": start, "ended": ended, "rounds": [asdict(r) for r in rounds]}
    return merged_record([json.dumps([block])])


def compared(progress: SearchState, n: int, budget: float) -> Row | None:
    """Compare the estimate after a budget with what ten times the gradients found.

    Returns:
        None if the search had no sample left at that budget, or ran no longer.
    """
    ends = [i for i, r in enumerate(progress.rounds) if r.spent >= budget]
    if not ends or not progress.rounds[ends[0]].left or ends[0] + 1 == len(progress.rounds):
        return None
    before = progress.rounds[: ends[0] + 1]
    later = next((r for r in progress.rounds if r.spent >= 10 * budget), progress.rounds[-1])
    estimate = record_of(progress.start, n, before)["estimate"]
    found = before[-1].left - later.left
    return {
        "spent": before[-1].spent,
        "left": before[-1].left,
        "later": later.spent,
        "found": found,
        **estimate,
    }


@dataclass(frozen=True)
class Network:
    """A classifier in evaluation mode, with images and the radius of the attacks."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float

    @torch.no_grad()
    def right(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return which points are classified correctly [B], float64."""
        with evaluating(self.model), unfused():
            return (classify(self.model, x, self.y[rows]).argmax(1) == self.y[rows]).double()

    def left(self, x: Tensor) -> int:
        """Return how many adversarial inputs are classified correctly, after a check of eps."""
        Linf(self.eps).check(x, self.x)
        return int(self.right(x, torch.arange(len(x))).sum())


def load(name: str, args: argparse.Namespace) -> Network | str:
    """Return a network, or why it cannot be loaded."""
    if name in reference.STRONGEST:
        reference.FOLDER = args.reference
        if not (args.reference / f"{name}.npz").is_file():
            return f"no file {name}.npz in {args.reference}"
        model, record = reference.load(name)
        return Network(name, model, record["x"][: args.limit], record["y"][: args.limit], 0.1)
    if not (args.runs / name).is_dir():
        return f"no run folder {args.runs / name}; spikeguard train {name} makes one"
    run = Run.load(args.runs / name, data_root=args.data_root)
    x, y = run.data.test.batch(torch.arange(args.limit))
    eps = 0.2 if "mnist" in name else 8 / 255 if "cifar" in name else 0.1
    return Network(name, run.model.eval(), x, y, eps)


def run_autoattack(network: Network, seed: int, folder: Path) -> Row:
    """Run AutoAttack's standard version, its own code."""
    sys.path.insert(0, str(folder))
    from autoattack import AutoAttack

    model = copy.deepcopy(network.model).requires_grad_(False)
    began = time.process_time()
    attack = AutoAttack(model, norm="Linf", eps=network.eps, device="cpu", verbose=False)
    attack.seed = seed
    found = attack.run_standard_evaluation(network.x, network.y, bs=len(network.x))
    return {"cpu_s": time.process_time() - began, "left": network.left(found.detach())}


def run_cascade(network: Network, name: str) -> Row:
    """Run a suite of attacks as a cascade."""
    attacks = suite(name, eps=network.eps)
    began = time.process_time()
    result = evaluate(network.model, (network.x, network.y), attacks, cascade=True)
    left = int(result.outcomes["worst_case"].sum())
    return {"cpu_s": time.process_time() - began, "left": left}


def search(network: Network, seed: int, state: Path, what: str, most: float = 0) -> SearchState:
    """Run the suite snn to its end, or without the flat rule to ``most`` gradients."""
    attack = suite("snn", eps=network.eps)["snn"]
    assert isinstance(attack, Converging)
    n = len(network.x)
    every = torch.arange(n)
    if state.exists():
        with np.load(state) as stored:
            progress = SearchState.from_arrays(dict(stored), torch.device("cpu"))
    else:
        progress = SearchState.of(network.x, network.right(network.x, every))

    def judge(points: Tensor, rows: Tensor) -> Tensor:
        Linf(network.eps).check(points, network.x[rows])
        return network.right(points, rows)

    def after_round(now: SearchState) -> None:
        write_npz(state, **now.arrays())
        last = now.rounds[-1]
        print(
            f"  {what}: {last.search}, {last.spent:.0f} gradients, {now.cpu_s:.0f} s, "
            f"left {last.left:.0f} of {n}",
            file=sys.stderr,
            flush=True,
        )

    streams = SampleStreams(key(seed, "attack", "snn"), every)
    share = converging._FLAT_SHARE
    if most:
        attack, progress.ended, share = replace(attack, budget=most), "", -1.0
    with patch.object(converging, "_FLAT_SHARE", share):
        attack.run(
            network.model, network.x, network.y, progress, streams,
            batch_size=BATCH, judge=judge, after_round=after_round,
        )  # fmt: skip
    write_npz(state, **progress.arrays())
    return progress


def run_snn(network: Network, seed: int, state: Path, what: str) -> Row:
    """Run the suite snn."""
    began = time.process_time()
    progress = search(network, seed, state, what)
    return {
        "cpu_s": progress.cpu_s,
        "process_s": time.process_time() - began,
        "left": network.left(progress.points),
        "start": progress.start,
        "fell": sorted(progress.fell[progress.fell.isfinite()].tolist()),
        "ended": progress.ended,
        "spent": progress.spent,
        **record_of(progress.start, len(network.x), progress.rounds, progress.ended),
    }


def run_calibration(network: Network, end: Path, state: Path, what: str, most: float | None) -> Row:
    """Run a search to its end and on to ten times its gradients, and compare estimates.

    Args:
        network: The network.
        end: File for the state at the search's own end; a state in it is continued.
        state: File for the state after that.
        what: Name of the measurement, for the lines that show progress.
        most: Gradients per sample at which to stop earlier, or None.
    """
    progress = search(network, 0, end, what)
    ended = progress.spent
    if not state.exists():
        write_npz(state, **progress.arrays())
    last = min(10 * ended, most or float("inf"))
    progress = search(network, 0, state, what, most=last)
    pairs = [compared(progress, len(network.x), each) for each in (*SMALL, ended)]
    return {"pairs": pairs, "cpu_s": progress.cpu_s, "left": network.left(progress.points)}


class Rows:
    """Measurements in a JSON lines file."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / "rows.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def get(self, network: str, kind: str, seed: int) -> Row | None:
        """Return a measurement."""
        wanted = (network, kind, seed)
        found = (r for r in self.rows if (r["network"], r["kind"], r["seed"]) == wanted)
        return next(found, None)

    def state(self, network: str, kind: str, seed: int) -> Path:
        """Return the file for the state of a search."""
        return self.folder / f"{network.replace('/', '-')}.{kind}.{seed}.npz"

    def add(self, network: Network, kind: str, seed: int, row: Row) -> None:
        """Store a measurement."""
        own = {"network": network.name, "kind": kind, "seed": seed, "n": len(network.x)}
        self.rows.append({**own, "eps": network.eps, **row})
        with self.file.open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        print(f"{network.name} {kind} seed {seed}: {row['left']} left, {row['cpu_s']:.0f} s",
              file=sys.stderr, flush=True)  # fmt: skip


def main() -> None:
    """Measure what is not stored yet, and print the tables."""
    keep_freed_memory()  # as the command spikeguard does; AutoAttack's code runs with it too
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--autoattack", type=Path, help="folder that holds the package autoattack")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders")
    parser.add_argument("--reference", type=Path, default=reference.FOLDER)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--networks", nargs="*", default=list(BARS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--cascades", action="store_true", help="also standard and snn-cascade")
    parser.add_argument("--calibrate", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--most", type=float, help="gradients per sample of a calibration")
    parser.add_argument("--out", type=Path, default=Path("convergence"))
    args = parser.parse_args()
    if args.autoattack is not None and not (args.autoattack / "autoattack").is_dir():
        parser.error(f"--autoattack: {args.autoattack} holds no folder autoattack.")

    torch.set_num_threads(1)
    rows, networks = Rows(args.out), {}
    for name in dict.fromkeys([*args.networks, *args.calibrate]):
        network = load(name, args)
        if isinstance(network, str):
            print(f"{name}: skipped, {network}")
        else:
            networks[name] = network
    measured = [name for name in args.networks if name in networks]
    for seed in range(args.seeds):
        for name in measured:
            network = networks[name]
            if args.autoattack is not None and rows.get(name, "autoattack", seed) is None:
                row = run_autoattack(network, seed, args.autoattack)
                rows.add(network, "autoattack", seed, row)
            if rows.get(name, "snn", seed) is None:
                state = rows.state(name, "snn", seed)
                row = run_snn(network, seed, state, f"{name} snn seed {seed}")
                rows.add(network, "snn", seed, row)
            for kind in ("standard", "snn-cascade") if args.cascades and not seed else ():
                if rows.get(name, kind, seed) is None:
                    rows.add(network, kind, seed, run_cascade(network, kind))
    for name in args.calibrate:
        if name in networks and rows.get(name, "calibration", 0) is None:
            files = (rows.state(name, kind, 0) for kind in ("snn", "calibration"))
            row = run_calibration(networks[name], *files, f"{name} calibration", args.most)
            rows.add(networks[name], "calibration", 0, row)
    for name in args.networks:
        print_network(name, rows.get, args.seeds)
    if args.calibrate:
        print_calibration(args.calibrate, rows.get)


if __name__ == "__main__":
    main()
