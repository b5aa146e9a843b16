"""How a training scales over processes: a model of one step, checked on CPUs, applied to GPUs.

    python benchmarks/scaling.py check --data-root data --out scaling.json   # about five minutes
    python benchmarks/scaling.py table

``check`` measures a training with 1, 2 and 4 processes beside what the model predicts from one
process and from all-reduces alone. ``table`` applies the model to many GPUs; what it assumes of
them is printed with it and was not measured here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikeguard.config.schema import Recipe

RECIPE, BATCH, SAMPLES, EPOCHS = "mini/cifar10-at", 64, 1024, 3


@dataclass(frozen=True)
class Work:
    """The work of one optimiser step.

    Attributes:
        batch: Samples of the global batch.
        passes: Forward and backward passes of a sample: 1, and one for each step of the attack.
        sample: Seconds of one pass of one sample.
        fixed: Seconds of one pass that do not depend on the batch.
        weights: Bytes of the gradient of the weights.
        norms: Batch normalisations whose statistics are shared; 0 where they are not.
    """

    batch: int
    passes: int
    sample: float
    fixed: float
    weights: float
    norms: int


@dataclass(frozen=True)
class Machine:
    """What connects and feeds the processes.

    Attributes:
        bandwidth: Bytes a second that one process sends in an all-reduce.
        latency: Seconds of one message.
        spread: Standard deviation of a process's step time, relative to its mean.
        feeding: Seconds in which the input pipeline of one process prepares one sample.
        cores: Processes that can compute at once; None for all.
        hidden: Share of the last pass in which the sum of the gradients costs nothing, as on a GPU;
            0 where the cores that compute also send.
    """

    bandwidth: float
    latency: float
    spread: float = 0.0
    feeding: float = 0.0
    cores: int | None = None
    hidden: float = 2 / 3


def step_parts(work: Work, machine: Machine, ranks: int) -> dict[str, float]:
    """Return the seconds of the parts of one step with some processes.

    Gradients are summed around a ring, or along a tree where that is faster, while the last
    backward pass still runs. Shared statistics are summed in every normalisation of the training
    pass, once forward and once backward, along a tree; nothing hides them. An attack takes running
    statistics and sums nothing. The slowest of n normal step times is about sqrt(2 ln n)
    deviations late.
    """
    share = work.batch / ranks
    crowd = 1.0 if machine.cores is None else max(1.0, ranks / machine.cores)
    one_pass = crowd * (work.fixed + share * work.sample)
    compute = work.passes * one_pass
    around, along = 2 * (ranks - 1), 2 * math.ceil(math.log2(ranks))
    sent = 2 * work.weights / machine.bandwidth
    ring = sent * (ranks - 1) / ranks + around * machine.latency
    tree = sent + along * machine.latency
    return {
        "compute": compute - crowd * work.passes * work.fixed,
        "fixed": crowd * work.passes * work.fixed,
        "gradients": max(0.0, min(ring, tree) - machine.hidden * one_pass) if ranks > 1 else 0.0,
        "statistics": 2 * work.norms * along * machine.latency,
        "stragglers": compute * machine.spread * math.sqrt(2 * math.log(ranks)),
        "input": max(0.0, share * machine.feeding - compute),
    }


def step_seconds(work: Work, machine: Machine, ranks: int) -> float:
    """Return the seconds of one step."""
    return sum(step_parts(work, machine, ranks).values())


# --- the check on CPUs


def training(ranks: int, batch: int, root: str, *changes: str) -> list[float]:
    """Return the seconds of each step, one value an epoch without the first, of a training."""
    words = ["train", RECIPE, f"data.train_limit={SAMPLES}", "data.val_fraction=0.1",
             f"train.batch_size={batch}", f"train.epochs={EPOCHS}", *changes,
             "--data-root", root]  # fmt: skip
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, *(launcher if ranks > 1 else []), "-m", "spikeguard"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run(
            [*command, *words, "--out", str(out)], env=environment, check=True, capture_output=True
        )
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    ends = [0, *(line["step"] for line in lines)]
    steps = [after - before for before, after in itertools.pairwise(ends)]
    return [line["seconds"] / count for line, count in list(zip(lines, steps, strict=True))[1:]]


def all_reduce_seconds(ranks: int, values: int, times: int = 30) -> float:
    """Return the median seconds of a sum of float32 values over processes (gloo)."""
    code = (
        "import os, statistics, time, torch, torch.distributed as d\n"
        "d.init_process_group('gloo'); torch.set_num_threads(1)\n"
        f"x = torch.ones({values}); took = []\n"
        f"for _ in range({times}):\n"
        "    d.barrier(); began = time.perf_counter(); d.all_reduce(x.fill_(1.0))\n"
        "    took.append(time.perf_counter() - began)\n"
        "if d.get_rank() == 0: print(statistics.median(took), flush=True)\n"
        "d.barrier(); os._exit(0)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "sum.py"
        script.write_text(code)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        found = subprocess.run(
            [sys.executable, *launcher, str(script)], check=True, capture_output=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    return float(found.stdout.split()[-1])


def check(root: str) -> dict[str, object]:
    """Measure, predict and compare; return all numbers."""
    from spikeguard.config.schema import load_recipe

    recipe = load_recipe(RECIPE)
    norms, weights = _network(recipe, root)
    single = {batch: training(1, batch, root) for batch in (BATCH, BATCH // 2, BATCH // 4)}
    times = {batch: statistics.mean(each) for batch, each in single.items()}
    slope, fixed = _line(times)
    passes = 1 + next(int(piece["steps"]) for piece in recipe.objective if piece["name"] == "at")
    cores = os.cpu_count() or 1
    work = Work(BATCH, passes, slope / passes, max(0.0, fixed) / passes, 4.0 * weights, norms)
    rows = []
    for ranks in (2, 4):
        small = all_reduce_seconds(ranks, 16)
        large = all_reduce_seconds(ranks, weights)
        latency = small / (2 * math.ceil(math.log2(ranks)))
        bandwidth = 2 * 4 * weights / max(large - small, 1e-4)
        machine = Machine(bandwidth, latency, cores=cores, hidden=0.0)
        for sync in (True, False):
            expected = step_parts(replace(work, norms=norms if sync else 0), machine, ranks)
            measured = training(ranks, BATCH, root, f"train.sync_batchnorm={str(sync).lower()}")
            rows.append(
                {
                    "ranks": ranks,
                    "shared statistics": sync,
                    "measured": statistics.mean(measured),
                    "predicted": sum(expected.values()),
                    "parts": expected,
                    "machine": asdict(machine),
                }
            )
    return {"work": asdict(work), "one process": times, "cores": cores, "rows": rows}


def _network(recipe: Recipe, root: str) -> tuple[int, int]:
    """Return the number of batch normalisations and of weights of a recipe's network."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from spikeguard.config.builder import build_model, load_data

    model = build_model(recipe, load_data(recipe, root))
    norms = sum(isinstance(module, _BatchNorm) for module in model.modules())
    return norms, sum(weight.numel() for weight in model.parameters())


def _line(times: dict[int, float]) -> tuple[float, float]:
    """Return slope and intercept of the least squares line through seconds by batch."""
    found = statistics.linear_regression(list(times), list(times.values()))
    return found.slope, found.intercept


# --- many GPUs

FLOPS = 2 * 3 * 3.6e9 * 4  # of a pass of SEW-ResNet-34 at 224 pixels: 3.6e9 multiply-adds, T = 4
WEIGHTS, NORMS = 4 * 21.8e6, 36
SPEEDS = (50e12, 150e12)  # operations a second that a GPU is assumed to reach in bfloat16
NODES = Machine(bandwidth=25e9, latency=15e-6, spread=0.03, feeding=12e-3 / 12)
FIXED = 8e-3  # seconds of a pass that a batch of any size takes: some 400 kernel starts
IMAGES = 1_281_167


def table() -> list[list[str]]:
    """Return the rows of the table of many GPUs: adversarial training with two steps."""
    rows = []
    for speed in SPEEDS:
        for batch, norms in ((1024, 0), (1024, NORMS), (8192, 0), (8192, NORMS)):
            work = Work(batch, 3, FLOPS / speed, FIXED, WEIGHTS, norms)
            alone = step_seconds(work, replace(NODES, feeding=0.0), 1)
            for ranks in (8, 64, 512):
                parts = step_parts(work, NODES, ranks)
                took = sum(parts.values())
                worst = max(parts, key=lambda name: parts[name] if name != "compute" else 0.0)
                rows.append(
                    [f"{speed / 1e12:.0f}", f"{batch:,}", "shared" if norms else "own",
                     str(ranks), f"{1000 * took:.0f}", f"{alone / took:.1f}",
                     f"{100 * alone / took / ranks:.0f} %",
                     f"{took * IMAGES / batch / 60:.1f}",
                     f"{worst} {100 * parts[worst] / took:.0f} %"]
                )  # fmt: skip
    return rows


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("check", "table"))
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what == "table":
        head = ["T op/s", "batch", "statistics", "GPUs", "ms a step", "speed-up", "efficiency",
                "min an epoch", "largest loss"]  # fmt: skip
        for row in [head, ["---"] * len(head), *table()]:
            print("| " + " | ".join(row) + " |")
        return
    found = check(options.data_root)
    text = json.dumps(found, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
