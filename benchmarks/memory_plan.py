"""The planned peak memory of training steps beside the measured one, in processes of their own.

``python benchmarks/memory_plan.py`` prints a table of a few minutes on two cores. A child process
builds a recipe, takes a step on two images so that libraries are loaded and buffers made, notes its
resident memory, takes two steps on a whole part of a batch, and notes the peak. The planned peak
includes weights, gradients and the state of the optimiser, which are there before; they are
subtracted.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

ALLOCATOR = {  # freed memory goes back at once, so that resident memory is memory in use
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}
CASES = {  # recipe, pixels, changes; the images are made, and none is read from a file
    "VGG11, AT": ["tgo/cifar10-vgg11-at", 32, "train.batch_size=32"],
    "WRN-16-4, TRADES": [
        "strong/wrn16_4-trades",
        32,
        "train.batch_size=16",
        "objective.trades.steps=1",
    ],
    "SEW-18, 64 pixels": ["imagenet/sew18", 64, "train.batch_size=6", "train.precision=32"],
    "SEW-18, 64 pixels, bf16": ["imagenet/sew18", 64, "train.batch_size=6"],
}
HERE = ["data.name=digits", "data.size=", "data.augment=", "evaluate.limit=4"]  # not loaded


def images(size, count=64):
    """Return images of one size that are not read from anywhere."""
    import torch

    from spikeguard.data import ImageSet, Splits
    from spikeguard.rng import stream

    pixels = torch.rand(count, 3, size, size, generator=stream(0, "images"))
    made = ImageSet(pixels, torch.arange(count) % 10, 10, f"toy{size}", peak=1.0)
    return Splits(made, made.subset(slice(8)), made.subset(slice(8)), (0.5,) * 3, (0.25,) * 3)


def resident():
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize()


def child(words, kind):
    """Print the bytes that were planned, or measured."""
    import torch

    from spikeguard.config.builder import build
    from spikeguard.config.schema import load_recipe
    from spikeguard.training.memory_plan import plan_memory
    from spikeguard.training.trial_step import TrialStep

    torch.set_num_threads(1)
    recipe, size, *changes = words
    built = build(load_recipe(recipe, [*changes, *HERE]), data=images(size))
    options = built.options
    plan = plan_memory(built.model, built.data, built.objective, options)
    weights = 4 * sum(p.numel() for p in built.model.parameters())
    if kind == "planned":
        state = 1 if options.optimizer == "sgd" else 2  # of the optimiser, for each weight
        print(plan.peak - (2 + state) * weights)
        return
    step = TrialStep(built.model, built.data, built.objective, options)
    step(2)
    step(2)
    before = resident()
    step(plan.images)
    step(plan.images)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def ask(words, kind):
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(words), "--kind", kind],
        env={**os.environ, **ALLOCATOR},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.split()[-1]) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child")
    parser.add_argument("--kind")
    given = parser.parse_args()
    if given.child:
        child(json.loads(given.child), given.kind)
        return
    print("| recipe | activations | planned MiB | measured MiB | planned / measured |")
    print("| --- | --- | --- | --- | --- |")
    for name, words in CASES.items():
        for what, more in (("kept", []), ("checkpointed", ["train.checkpoint_activations=true"])):
            planned, measured = (ask([*words, *more], kind) for kind in ("planned", "measured"))
            print(
                f"| {name} | {what} | {planned:.0f} | {measured:.0f} | {planned / measured:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
