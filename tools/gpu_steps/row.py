"""Train a row for as many epochs as fit, and attack it: one process, which a killed one continues.

    python -m gpu_steps.row strong/wrn16_4-at --out FOLDER --seconds 300 --attack "papers" ...

A few steps are timed first, and the number of epochs that follows is written to ``plan.json``: the
learning rate then ends at 0. A later call keeps that plan. The commands are ``spikeguard train
--resume`` and ``spikeguard attack``, with their own checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

from spikeguard.cli import main as spikeguard

__all__ = ["fitting", "main"]

_MARGIN = 0.85  # of the time; the rest is for checkpoints and for slower steps
_TIMED, _WARM = 5, 3  # steps


def fitting(seconds: float, step: float, images: int, batch: int, most: int) -> dict[str, int]:
    """Return the epochs, and where not even one fits the number of images, that fit a time.

    Args:
        seconds: Time for the training.
        step: Seconds of an optimiser step.
        images: Training images.
        batch: Images of a step.
        most: Epochs of the recipe, the upper limit.

    Returns:
        ``epochs`` >= 1; and ``images``, at least one batch, where an epoch is too long.
    """
    steps = math.floor(_MARGIN * seconds / step)
    epochs = steps // math.ceil(images / batch)
    if epochs >= 1:
        return {"epochs": min(epochs, most)}
    return {"epochs": 1, "images": max(batch, steps * batch)}


def plan(recipe: str, changes: list[str], seconds: float, data_root: str | None) -> dict[str, Any]:
    """Time a few steps of a recipe and return the plan of its training."""
    import torch

    from spikeguard.config import build, load_recipe
    from spikeguard.training.engine import Engine
    from spikeguard.training.learner import Learner
    from spikeguard.training.state import TrainState

    built = build(load_recipe(recipe, changes), data_root)
    engine, options = Engine(built.options.precision), built.options
    learner = Learner.create(built.model, built.data, built.objective, options, engine)
    state, count = TrainState(), len(built.data.train)
    index = torch.arange(min(options.batch_size, count))
    for number in range(_WARM + _TIMED):
        if number == _WARM:
            started = time.perf_counter()
        learner.step(index, state, 0.0)  # ends with numbers on the host, so it waits for the device
        state.batch += 1
    step = (time.perf_counter() - started) / _TIMED
    found = fitting(seconds, step, count, options.batch_size, options.epochs)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {
        "recipe": recipe,
        "changes": changes,
        "seconds_per_step": step,
        "train_images": count,
        "batch_size": options.batch_size,
        "recipe_epochs": options.epochs,
        "peak_gib": peak,
        **found,
    }


def main(words: list[str] | None = None) -> int:
    """Plan, train and attack; return the exit code of the first command that fails, or 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("--change", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--attack", action="append", default=[])
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--data-root")
    given = parser.parse_args(words)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "plan.json"
    if not file.exists():
        found = plan(given.recipe, given.change, 0.6 * given.seconds, given.data_root)
        file.write_text(json.dumps(found, indent=1))
    planned = json.loads(file.read_text())
    print(json.dumps(planned), flush=True)
    root = ["--data-root", given.data_root] if given.data_root else []
    changes = [*planned["changes"], f"train.epochs={planned['epochs']}"]
    if "images" in planned:
        changes.append(f"data.train_limit={planned['images']}")
    changes.append("train.checkpoint_seconds=15")
    run = str(given.out / "run")
    code = spikeguard(["train", planned["recipe"], *changes, "--out", run, "--resume", *root])
    for line in given.attack:
        if code == 0:
            named = "--attack" if " " in line else "--suite"
            limit = ["--limit", str(given.limit)]
            code = spikeguard(["attack", run, named, line, *limit, *root])
    return code


if __name__ == "__main__":
    raise SystemExit(main())
