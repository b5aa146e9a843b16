"""Training by several ranks on one machine: speed, and what killed ranks cost.

    python benchmarks/distributed.py speed [--steps 12] [--ranks 1,2] [--threads 1]
    python benchmarks/distributed.py faults [--rounds 1]

``speed`` prints milliseconds for an optimiser step (median, the first left out) and the speed-up
over one rank with the same batch (strong) and with the same images for each rank (weak). ``faults``
kills, stops and ends ranks of a training under torchrun, resumes it and compares with an unbroken
one: by the same number of ranks bit for bit, by another one in the losses of the epochs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from spikeguard.data import ImageSet, Splits
from spikeguard.defences import AT, TGO, Vanilla
from spikeguard.models import CNN, VGG11
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import stream
from spikeguard.storage.checkpoints import read_weights
from spikeguard.storage.digests import weights_digest
from spikeguard.storage.run_folder import LAST
from spikeguard.system.launch_place import this_place
from spikeguard.training import TrainOptions, train
from spikeguard.training.engine import joined
from spikeguard.training.world import ALONE

CASES = {  # network, objective, images of the whole batch
    "cnn 28x28, plain": (lambda: CNN(1, 10, 4, width=8, neuron=LIF()), Vanilla(), 64),
    "cnn 28x28, AT-2 + TGO, noisy": (
        lambda: CNN(1, 10, 4, width=8, neuron=NoisyLIF()),
        AT(eps=0.1, steps=2) | TGO(),
        64,
    ),
    "vgg11 / 8, AT-7": (lambda: VGG11(3, 10, 4, width=1 / 8), AT(eps=8 / 255, steps=7), 32),
}
RECIPE = ["demo/tgo", "data.train_limit=256", "train.epochs=4", "train.checkpoint_seconds=0"]
FAULTS = {"kill -9 rank 1": (signal.SIGKILL, 1), "kill -9 rank 0": (signal.SIGKILL, 0)}
FAULTS |= {"rank 1 hangs": (signal.SIGSTOP, 1), "SIGTERM to the launcher": (signal.SIGTERM, None)}


def torchrun(ranks, *words, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen([*command, f"--nproc-per-node={ranks}", *words], **options)


def environment(threads):
    return os.environ | {"OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR"}


# ------------------------------------------------------------------------------------- speed


def work(name, images, steps, shared, file):
    """Time the steps of a training, as one of the ranks or alone."""
    build, objective, _ = CASES[name]
    model, place, ends = build(), this_place(), []
    x = torch.rand(images * steps, *model.in_shape, generator=stream(0, "x"))
    y = torch.randint(10, (len(x),), generator=stream(0, "y"))
    train_set, test = (ImageSet(x[:n], y[:n], 10, f"random {n}", peak=1.0) for n in (len(x), 1))
    data = Splits(train_set, None, test, mean=(0.0,), std=(1.0,))
    options = TrainOptions(epochs=1, batch_size=images, sync_batchnorm=shared)
    with joined(place) if place else nullcontext(ALONE) as world:
        out = Path(tempfile.mkdtemp()) / "run"
        out = Path(world.of_first(str(out)))
        train(
            model,
            data,
            objective,
            options,
            out=out,
            world=world,
            progress=lambda *_: ends.append(time.perf_counter()),
        )
        if world.is_first:
            taken = [after - before for before, after in pairwise(ends[:steps])]
            file.write_text(json.dumps(1000 * median(taken)))
    sys.stdout.flush()
    os._exit(0)


def measured(name, ranks, images, args, shared=True):
    """Return the milliseconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "time.json"
        words = ["work", "--case", name, "--images", str(images), "--steps", str(args.steps)]
        words += ["--file", str(file), "--shared", str(int(shared))]
        torchrun(ranks, __file__, *words, env=environment(args.threads)).wait()
        return json.loads(file.read_text())


def speed(args):
    counts = [int(each) for each in args.ranks.split(",")]
    print("| network, objective | ranks | batch | ms/step | strong | weak | own statistics |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (_, _, images) in CASES.items():
        alone = None
        for ranks in counts:
            strong = measured(name, ranks, images, args)
            alone = strong if alone is None else alone
            weak = own = strong
            if ranks > 1:
                weak = measured(name, ranks, images * ranks, args)
                own = measured(name, ranks, images, args, shared=False)
            gains = f"{alone / strong:.2f} | {ranks * alone / weak:.2f} | {alone / own:.2f}"
            print(f"| {name} | {ranks} | {images} | {strong:.0f} | {gains} |", flush=True)


# ------------------------------------------------------------------------------------ faults


def processes(launcher):
    """Return the ranks that a launcher has started."""
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        for word in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            if word.startswith(b"RANK="):
                found[int(word[5:])] = int(child)
    return found


def run(out, ranks, *, resume=False, fault=None, after=0):
    """Train under torchrun; return its output and the seconds from the fault to the end."""
    words = ["-m", "spikeguard", "train", *RECIPE, "--out", str(out)]
    words += ["--resume"] if resume else []
    pipe = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = torchrun(ranks, *words, env=environment(1), **pipe)
    started = None
    if fault is not None:
        number, rank = fault
        while not (out / LAST).exists():
            time.sleep(0.02)
        time.sleep(after)
        started = time.monotonic()
        os.kill(process.pid if rank is None else processes(process.pid)[rank], number)
    text = process.communicate()[1]
    lines = [line for line in text.splitlines() if line.startswith("spikeguard train: ")]
    return lines, None if started is None else time.monotonic() - started


def trace(out):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train_loss"] for line in lines]


def digest(out):
    return weights_digest(read_weights(out / LAST))


def faults(args):
    chance, base = random.Random(0), Path(tempfile.mkdtemp())
    run(base / "2", 2)
    unbroken, losses = digest(base / "2"), trace(base / "2")
    print("| fault | ended in s | reported | resumed by | result |")
    print("| --- | --- | --- | --- | --- |")
    survived = total = 0
    for number in range(args.rounds):
        for name, fault in FAULTS.items():
            out = base / f"{name}-{number}"
            lines, seconds = run(out, 2, fault=fault, after=chance.random())
            ranks = chance.choice((1, 2))
            run(out, ranks, resume=True)
            if ranks == 2:
                result = "the same bits" if digest(out) == unbroken else "other bits"
            else:
                gap = max(abs(a - b) / b for a, b in zip(trace(out), losses, strict=True))
                result = f"losses within {gap:.1e}"
            good = seconds <= 30 and len(lines) == 1 and result != "other bits"
            survived, total = survived + good, total + 1
            said = " / ".join(lines).removeprefix("spikeguard train: ")
            print(f"| {name} | {seconds:.1f} | {said} | {ranks} | {result} |", flush=True)
    print(f"\nsurvived {survived}/{total}")


parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("what", choices=["speed", "faults", "work"])
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--ranks", default="1,2")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=1)
parser.add_argument("--case", default="")
parser.add_argument("--images", type=int, default=0)
parser.add_argument("--shared", type=int, default=1)
parser.add_argument("--file", type=Path)
args = parser.parse_args()
torch.set_num_threads(args.threads)

if args.what == "work":
    work(args.case, args.images, args.steps, bool(args.shared), args.file)
elif args.what == "speed":
    speed(args)
else:
    faults(args)
