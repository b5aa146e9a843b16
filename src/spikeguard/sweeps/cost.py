"""The cost of a sweep before it starts: one optimiser step is timed, attacks are estimated."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from spikeguard.attacks.suites import suitable
from spikeguard.config.builder import Built, build, build_suite
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import Recipe
from spikeguard.data.images import Splits
from spikeguard.evaluation.cost_estimate import estimate
from spikeguard.sweeps.metrics import Metric
from spikeguard.sweeps.space import Dimension, Value
from spikeguard.sweeps.trial import Plan
from spikeguard.system.durations import duration
from spikeguard.system.processes import one_thread
from spikeguard.training.engine import Engine
from spikeguard.training.learner import Learner
from spikeguard.training.state import TrainState

__all__ = ["Cost", "require_points", "require_reachable", "time_points"]


@dataclass(frozen=True)
class Cost:
    """Estimated time of one point on this machine under its present load, in one process.

    Attributes:
        steps: Optimiser steps of one point, all seeds together.
        training: Seconds of these steps.
        attacks: Upper bound on the seconds of the attacks; infinite if unknown.
    """

    steps: int
    training: float
    attacks: float

    def text(self, points: int, jobs: int) -> str:
        """Return the cost of so many points as one line."""
        at_once = min(jobs, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
        found = (
            f"{points:,} points, {self.steps:,} optimiser steps each: about "
            f"{duration(self.training * points / at_once)} of training"
        )
        if not self.attacks:
            return found
        if not math.isfinite(self.attacks):
            return f"{found}; the cost of the attacks is unknown"
        return f"{found}, at most {duration(self.attacks * points / at_once)} of attacks"


def require_points(plan: Plan, dimensions: Sequence[Dimension], metrics: Sequence[Metric]) -> None:
    """Reject fields, values and metrics that the recipe rejects; nothing is written.

    Every value of a list is built, and both ends of a range, the other fields at their first value.

    Raises:
        ConfigError: If a field is unknown, a value is rejected, the data are missing, or a metric
            cannot be measured.
    """
    first = {each.field: each.values[0] for each in dimensions}
    recipe, parts = plan.recipe_at(first), _Parts(plan)
    built = parts.of(recipe)
    for each in dimensions:
        for value in each.values[-1:] if each.ranged else each.values[1:]:
            parts.of(plan.recipe_at({**first, each.field: value}))
    for metric in metrics:
        metric.require(recipe, built)


class _Parts:
    """Builds recipes, and loads images once for all recipes with the same data section."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._data: dict[str, Splits] = {}

    def of(self, recipe: Recipe) -> Built:
        """Build a recipe of the first seed."""
        section = recipe.data.model_dump_json()
        built = build(recipe, self._plan.data_root, data=self._data.get(section))
        self._data[section] = built.data
        return built


def time_points(plan: Plan, ends: Sequence[Mapping[str, Value]], metrics: Sequence[Metric]) -> Cost:
    """Return the mean cost of some points, such as the first and the last of a grid."""
    parts = _Parts(plan)
    found = [_time_point(plan, parts, point, metrics) for point in ends]
    return Cost(
        round(sum(each.steps for each in found) / len(found)),
        sum(each.training for each in found) / len(found),
        sum(each.attacks for each in found) / len(found),
    )


def _time_point(
    plan: Plan, parts: _Parts, point: Mapping[str, Value], metrics: Sequence[Metric]
) -> Cost:
    recipe = plan.recipe_at(point)
    built = parts.of(recipe)
    options, n = built.options, len(built.data.train)
    steps = options.epochs * math.ceil(n / options.batch_size) * len(plan.seeds)
    attacks = 0.0
    model, test, evaluate = built.model, built.data.test, recipe.evaluate
    with one_thread():
        for suite, eps in sorted({(each.suite, each.eps) for each in metrics if each.suite}):
            wanted = build_suite(suite, eps=eps, norm=evaluate.norm, plugins=plan.plugins)
            fitting, _ = suitable(wanted, model, test.batch(slice(evaluate.batch_size))[0])
            batch = evaluate.batch_size
            cost = estimate(model, test, fitting, limit=plan.attacked(recipe), batch_size=batch)
            attacks += cost.seconds * len(plan.seeds)
        return Cost(steps, _step_seconds(built) * steps, attacks)


def _step_seconds(built: Built) -> float:
    """Return the seconds of one optimiser step, the faster of two; the network is changed."""
    options = built.options
    engine = Engine(options.precision, log=None)
    learner = Learner.create(built.model, built.data, built.objective, options, engine)
    n = len(built.data.train)
    took = math.inf
    for _ in range(2):  # the first step is slower
        began = time.monotonic()
        learner.step(torch.arange(min(n, options.batch_size)), TrainState(), progress=0.5)
        took = min(took, time.monotonic() - began)
    return took


def require_reachable(cost: Cost, seconds: float) -> None:
    """Reject a budget that ends before one point can.

    Raises:
        ConfigError: If the training of one point takes longer.
    """
    if cost.training > seconds:
        raise ConfigError(
            f"--budget: {duration(seconds)} is less than the training of one point, "
            f"{cost.steps:,} optimiser steps, takes (about {duration(cost.training)}); write a "
            "longer one, or fewer epochs, images or seeds."
        )
