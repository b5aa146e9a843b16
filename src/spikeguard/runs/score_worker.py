"""TODO."""

from __future__ import annotations

from spikeguard.runs.run import Run


def answer(path: str, data_root: str, asked: str, answers: str) -> None:
    """Load a run, score the inputs of one file, and write who is right into another."""
    import torch
    from numpy import load, savez

    from spikeguard.evaluation.evaluator import evaluate

    run = Run.load(path, data_root=data_root or None)
    with load(asked) as found:
        x, y = torch.from_numpy(found["x"]), torch.from_numpy(found["y"])
    right = evaluate(run.model, (x, y), {}, seed=run.recipe.seed).outcomes["clean"]
    savez(answers, right=right.numpy())
