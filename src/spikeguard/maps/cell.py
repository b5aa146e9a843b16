"""What a map records of a trained network: accuracy, spikes, operations, class, robustness."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from spikeguard.config.errors import ConfigError
from spikeguard.maps.classes import Behaviour, classify, pooled
from spikeguard.storage.run_folder import METRICS

if TYPE_CHECKING:
    from spikeguard.analysis.base import Analysis
    from spikeguard.analysis.measurement import Measurement
    from spikeguard.data.images import ImageSet
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.evaluation.statistics import Score
    from spikeguard.models.snn import SNN
    from spikeguard.runs.run import Run
    from spikeguard.sweeps.metrics import Metric
    from spikeguard.system.progress import ProgressCallback

__all__ = ["CleanLook", "behaviour_of", "input_spikes", "joined", "measured"]

_OPERATIONS = 128  # images on which operations are counted


@dataclass(frozen=True)
class CleanLook:
    """A trained network on clean test images.

    Attributes:
        clean: Its evaluation without attacks.
        activity: Its spikes, of the same images.
        steps: Optimiser steps of its training.
        behaviour: What its class depends on.
    """

    clean: Evaluation
    activity: Measurement
    steps: int
    behaviour: Behaviour

    @classmethod
    def at(cls, run: Run) -> Self:
        """Measure a run on the test images of its recipe's evaluate section, one draw an image."""
        from spikeguard.analysis.activity import Activity
        from spikeguard.evaluation.evaluator import evaluate

        images, limit = run.data.test, _limit(run)
        clean = evaluate(
            run.model,
            images,
            {},
            seed=run.recipe.seed,
            limit=limit,
            batch_size=run.recipe.evaluate.batch_size,
            draws=1,
            check=False,
            progress=None,
        )
        activity = _analysed(run, "activity", Activity(limit=limit))
        epochs = list(map(json.loads, (run.path / METRICS).read_text("utf-8").splitlines()))
        behaviour = behaviour_of(
            float(clean.outcomes["clean"].sum()),
            images.num_classes,
            activity,
            [float(epoch["train_loss"]) for epoch in epochs],
        )
        return cls(clean, activity, int(epochs[-1]["step"]), behaviour)


def behaviour_of(
    right: float, labels: int, activity: Measurement, losses: Sequence[float]
) -> Behaviour:
    """Return what the class depends on.

    Args:
        right: Images classified correctly, of those of the activity.
        labels: Number of classes of the task.
        activity: Result of the analysis "activity".
        losses: Mean training loss of each epoch.
    """
    return Behaviour(
        right,
        activity.samples,
        labels,
        float(activity["spikes"].sum(1).min()),
        float(activity["rate"].mean(1).max()),
        losses,
    )


def measured(
    run: Run,
    look: CleanLook,
    robust: Sequence[Metric],
    attacked: int | None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Return what a map records of a run, as plain data; what its folder holds is read.

    Args:
        run: A finished run.
        look: The same on clean images.
        robust: Metrics of suite and radius under which it is attacked.
        attacked: Number of the first test images that are attacked; None for all.
        progress: Callback ``(done, total, what)`` of the attacks, or None.
    """
    from spikeguard.analysis.operations import Operations

    plan, images = run.recipe.evaluate, min(_limit(run), _OPERATIONS)
    operations = _analysed(run, "operations", Operations(limit=images))
    kind = classify(look.behaviour)
    works = kind in ("working", "not converged")  # else the check warns of what the class says
    limited = plan.model_copy(update={"limit": attacked})
    evaluations = {
        each.text.removeprefix("robust:"): (
            each,
            run.evaluate(each.suite, eps=each.eps, plan=limited, check=works, progress=progress),
        )
        for each in robust
    }
    return {
        "class": kind,
        "accuracy": _score(look.clean.clean),
        "spikes": _spikes(run, look.activity),
        "operations": _operations(operations),
        "near_threshold": run.membrane().near_threshold,
        "robust": {
            text: {
                "suite": metric.suite,
                "norm": plan.norm,
                "eps": metric.eps,
                **_score(found.worst_case),
                "zero_gradient": float(found.zero_gradient),
            }
            for text, (metric, found) in evaluations.items()
        },
    }


def joined(seeds: Sequence[Mapping[str, Any]], found: Sequence[Behaviour]) -> dict[str, Any]:
    """Return the record of a cell: means over its seeds, and those whose numbers differ by seed.

    The interval of a mean accuracy is Wilson's for the number of test images, which all seeds
    share.
    """
    from spikeguard.evaluation.statistics import Score

    def mean(*path: str) -> float | None:
        values: list[Any] = list(seeds)
        for key in path:
            values = [value[key] for value in values]
        return None if None in values else sum(values) / len(values)

    def score(*path: str) -> dict[str, Any]:
        n = _at(seeds[0], path)["n"]
        among = Score.from_share(mean(*path, "accuracy") or 0.0, n)
        return {"accuracy": among.accuracy, "low": among.low, "high": among.high, "n": n}

    spikes, operations = seeds[0]["spikes"], seeds[0]["operations"]
    return {
        "class": classify(pooled(found)),
        "accuracy": score("accuracy"),
        "spikes": {
            "images": spikes["images"],
            "layers": {name: mean("spikes", "layers", name) for name in spikes["layers"]},
            **{
                name: mean("spikes", name)
                for name in spikes
                if name not in ("images", "layers", "an_image")
            },
            "an_image": mean("spikes", "an_image", "mean"),
        },
        "operations": {
            "images": operations["images"],
            **{
                name: mean("operations", name, "mean")
                for name in operations
                if isinstance(operations[name], Mapping)
            },
            "dense": mean("operations", "dense"),
        },
        "near_threshold": mean("near_threshold"),
        "robust": {
            text: {
                **{name: each[name] for name in ("suite", "norm", "eps")},
                **score("robust", text),
                "zero_gradient": mean("robust", text, "zero_gradient"),
            }
            for text, each in seeds[0]["robust"].items()
        },
    }


def input_spikes(model: SNN, images: ImageSet, n: int, seed: int, batch_size: int) -> float | None:
    """Return the input spikes of an image, the mean over the first n; None for a graded input.

    A spike may have a sign. The draws are those of one pass.
    """
    from spikeguard.rng import SampleStreams, key, randomness

    encoder, total = model.encoder, 0
    if encoder.constant or encoder.normalised:
        return None
    for start in range(0, n, batch_size):
        index = torch.arange(start, min(start + batch_size, n))
        x = images.batch(index)[0]
        with torch.no_grad(), randomness(model, SampleStreams(key(seed, "input spikes"), index)):
            frames = encoder(x, model.T)
        if not torch.isin(frames, torch.tensor([-1.0, 0.0, 1.0], dtype=frames.dtype)).all():
            return None
        total += int(frames.count_nonzero())
    return total / n


def _spikes(run: Run, found: Measurement) -> dict[str, Any]:
    """Return the spikes of all layers; "total" of all images, the others of an image."""
    names = [str(name) for name in found.axes["layer"]]
    layers = dict(zip(names, map(float, found["spikes"].sum(1)), strict=True))
    n, middle = found.samples, found.number("total", of="mean")
    size = run.recipe.evaluate.batch_size
    encoded = input_spikes(run.model, run.data.test, n, run.recipe.seed, size)
    output = layers[names[-1]] if run.recipe.model.get("readout") == "rate" else None
    return {
        "images": n,
        "total": float(found["image_spikes"].sum()),
        "an_image": _mean(found, "total"),
        "layers": layers,
        "input": encoded,
        "output": output,
        "with_input": None if encoded is None else middle + encoded,
        "without_output": middle - (output or 0.0),
        "at_most": float(found["neurons"].sum() * found["rate"].shape[1]),
    }


def _operations(found: Measurement) -> dict[str, Any]:
    return {
        "images": found.samples,
        "effective_acs": _mean(found, "Effective_ACs"),
        "effective_macs": _mean(found, "Effective_MACs"),
        "membrane_updates": _mean(found, "Membrane_Updates"),
        "dense": float(found["Dense"]),
    }


def _mean(found: Measurement, name: str) -> dict[str, float | None]:
    ends = {end: found.number(name, of=end) for end in ("mean", "low", "high")}
    return {end: value if math.isfinite(value) else None for end, value in ends.items()}


def _score(score: Score) -> dict[str, Any]:
    return {"accuracy": score.accuracy, "low": score.low, "high": score.high, "n": score.n}


def _limit(run: Run) -> int:
    n = len(run.data.test)
    return min(run.recipe.evaluate.limit or n, n)


def _analysed(run: Run, name: str, analysis: Analysis) -> Measurement:
    """Measure an analysis of a run, or read it from its folder.

    Raises:
        ConfigError: If it does not apply to the network.
    """
    from spikeguard.runs.analyses import Subject, analyse_once

    found = analyse_once(Subject.of_run(run), {name: analysis})
    if name not in found:
        raise ConfigError(f"{run.recipe.label}: a map needs the analysis {name}.")
    return found[name]


def _at(card: Mapping[str, Any], path: Sequence[str]) -> Any:
    for key in path:
        card = card[key]
    return card
