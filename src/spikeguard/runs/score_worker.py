"""Main function of the fresh process that scores inputs of a run again, from file to file."""

from __future__ import annotations

import numpy as np
import torch

from spikeguard.evaluation.evaluator import evaluate
from spikeguard.runs.run import Run

__all__ = ["answer"]


def answer(path: str, data_root: str, inputs: str, outcomes: str, *plugins: str) -> None:
    """Load a run, score the inputs in one file, and write the share of correct draws to another."""
    run = Run.load(path, data_root=data_root or None, plugins=plugins)
    with np.load(inputs) as found:
        x, y = torch.from_numpy(found["x"]), torch.from_numpy(found["y"])
    found = evaluate(run.model, (x, y), {}, seed=run.recipe.seed, check=False, progress=None)
    right = found.outcomes["clean"]
    np.savez(outcomes, right=right.numpy())
