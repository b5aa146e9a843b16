"""Trainings that several ranks run together: ``python -m tests.toys.rank_jobs FOLDER FILE``.

The file lists the jobs. Each rank writes what it saw to a file of its own, and leaves at once.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from spikeguard.data import Compose, HorizontalFlip, ImageSet, RandomCrop, Splits
from spikeguard.defences import AT, MPDSGR, MPPD, RAT, SR, TGO, GaussianNoise, Mixup, Vanilla
from spikeguard.models import CNN
from spikeguard.neurons import DLIF, LIF, NoisyLIF
from spikeguard.rng import stream
from spikeguard.system.launch_place import this_place
from spikeguard.training import TrainOptions, train
from spikeguard.training.divergence import TrainingDiverged
from spikeguard.training.engine import joined
from spikeguard.training.world import ALONE
from tests.toys.ports import free_port

ATTACK = AT(eps=0.1, steps=2)


def lif():
    return LIF(0.5, v_th=0.3)


def noisy():
    return NoisyLIF(0.5, sigma=0.2, v_th=0.3)


def dlif():
    return DLIF(T=2, v_th=0.3)


OBJECTIVES = {  # neuron, objective, options
    "vanilla": (lif, Vanilla(), {}),
    "tgo": (noisy, ATTACK | TGO(1.0), {}),
    "run_again": (noisy, ATTACK, {"checkpoint_activations": True}),
    "sr": (noisy, ATTACK | SR(lamb=0.1), {}),
    "rat": (lif, ATTACK | RAT(0.004), {"weight_decay": 0.0, "accumulate": 2}),
    "rat_at_once": (lif, ATTACK | RAT(0.004), {"weight_decay": 0.0}),
    "bf16": (lif, Vanilla(), {"precision": "bf16"}),
    "mppd": (dlif, ATTACK | MPPD() | Mixup(), {}),
    "mpd_sgr": (lif, GaussianNoise(0.1) | MPDSGR(0.5), {}),
    "ema": (lif, Vanilla(), {"ema": 0.9}),
    "swa": (lif, Vanilla(), {"swa": 0.25}),
    "own_statistics": (lif, Vanilla(), {"sync_batchnorm": False}),
}
DIVERGED = TrainingDiverged("training diverged", epoch=1, step=1, term=None, layer=None)
STEP = 4  # a signal arrives after it, in the first epoch
STEPS = 6  # in an epoch


def images(count, name):
    """Images of three classes, each with its own bright rows; 8 x 8 pixels."""
    labels = torch.arange(count) % 3
    x = 0.4 * torch.rand(count, 1, 8, 8, generator=stream(0, name))
    for number, label in enumerate(labels):
        x[number, :, 2 * label + 1 : 2 * label + 3] += 0.5
    return ImageSet(x, labels, 3, name, peak=1.0)


def data():
    """44 training images: with batches of 8, the last one has 4; 21 validation images."""
    parts = (images(44, "train"), images(21, "val"), images(3, "test"))
    augment = Compose((RandomCrop(1), HorizontalFlip()))
    return Splits(*parts, mean=(0.0,), std=(1.0,), augment=augment)


def run(name, out, world=ALONE, **extra):
    """Train one of the objectives; return the losses and the accuracy of each epoch."""
    neuron, objective, options = OBJECTIVES[name]
    given = {"epochs": 2, "batch_size": 8, "lr": 0.05, "weight_decay": 5e-4, **options}
    progress, resume = extra.pop("progress", None), extra.pop("resume", False)
    generator = stream(0, "w")
    model = CNN(1, 3, T=2, width=4, hidden=8, image_size=8, neuron=neuron(), generator=generator)
    found = train(
        model,
        data(),
        objective,
        TrainOptions(**{**given, **extra}),
        out=out,
        resume=resume,
        progress=progress,
        world=world,
    )
    names = ("train_loss", "val_loss", "val_accuracy")
    return [[line[name] for name in names] for line in found.history]


class Stopped(Exception):
    """SIGTERM arrived."""


def terminated(name, out, world, after=STEP):
    """Train until SIGTERM, which rank 0 alone receives; every rank stops after the same step."""

    def stop(number, frame):
        raise Stopped

    def progress(done, total, text):
        if done == after:
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    try:
        return run(name, out, world, progress=progress)
    except Stopped:
        return "stopped"


def in_two_parts(name, out, world):
    """Stop in the second epoch, after the average has begun, and resume."""
    folder = out / f"{name}-stopped"
    assert terminated(name, folder, world, after=STEPS + STEP) == "stopped"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return run(name, folder, world, resume=True)


def differs(world):
    """A rank has other data than rank 0."""
    try:
        world.require_equal({"data": f"digits {world.rank // (world.size - 1)}"})
    except ValueError as error:
        return str(error)


def fails_alone(world):
    """The last rank fails in a common block, after which all go on."""
    try:
        with world.together():
            if world.rank == world.size - 1:
                raise ValueError("no such folder")
    except (ValueError, RuntimeError) as error:
        return str(error)


def dies(world, error, rank):
    """A rank fails while the others wait for it."""
    if world.rank == rank:
        raise error
    world.sum([0.0])


JOBS = {
    "differs": lambda out, world: differs(world),
    "fails_alone": lambda out, world: fails_alone(world),
    "disk_full": lambda out, world: dies(world, OSError(28, "No space left on device"), 0),
    "diverges": lambda out, world: dies(world, DIVERGED, world.size - 1),
    "terminated": lambda out, world: terminated("mppd", out / "stopped", world),
    "resumed_ema": lambda out, world: in_two_parts("ema", out, world),
    "resumed_swa": lambda out, world: in_two_parts("swa", out, world),
    "resumed": lambda out, world: run("mppd", out / "stopped", world, resume=True),
}


def main():
    """Run the jobs of a file as one of several ranks."""
    torch.set_num_threads(1)
    out, jobs = Path(sys.argv[1]), sys.argv[2].split(",")
    place, found = this_place(), {}
    own = out / f"{place.size}-{place.rank}.json"
    try:
        with joined(place) if place else nullcontext(ALONE) as world:
            for name in jobs:
                if name in JOBS:
                    found[name] = JOBS[name](out, world)
                else:
                    found[name] = run(name, out / f"{name}-{world.size}", world)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        found[name] = f"{type(error).__name__} {code}: {error}"
    own.write_text(json.dumps(found))
    os._exit(0)


def environment(rank, size, port):
    """Return the environment that torchrun gives a rank."""
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    return os.environ | {name: str(value) for name, value in place.items()}


def launch(size, out, jobs):
    """Run jobs with several ranks; return what each rank saw."""
    port, words = free_port(), [sys.executable, "-m", "tests.toys.rank_jobs", str(out)]
    root = Path(__file__).parents[2]
    started = [
        subprocess.Popen([*words, ",".join(jobs)], cwd=root, env=environment(rank, size, port))
        for rank in range(size)
    ]
    try:
        for process in started:
            process.wait(timeout=240)
    finally:
        for process in started:
            process.kill()
    return [json.loads((out / f"{size}-{rank}.json").read_text()) for rank in range(size)]


def rank_of(parent, rank):
    """Return the process of a rank that torchrun started; wait for it."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for child in listed.read_text().split():
            known = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in known:
                return int(child)
        time.sleep(0.1)
    raise TimeoutError(f"no rank {rank}")


if __name__ == "__main__":
    main()
