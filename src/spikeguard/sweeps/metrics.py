"""Metrics of a finished run: the numbers that a sweep maximises, minimises and tabulates."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spikeguard.config.errors import ConfigError, unknown_name
from spikeguard.config.instantiate import parse_number
from spikeguard.storage.run_folder import RESULT
from spikeguard.system.pixel_units import radius_problem

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.config.builder import Built
    from spikeguard.config.schema import Recipe
    from spikeguard.data.images import ImageSet
    from spikeguard.evaluation.activity import ActivityCost
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.runs.run import Run

__all__ = ["METRICS", "Metric", "parse_metric"]

_AT = re.compile(r"(robust|zero_gradient):([^@]+)@(.+)")


@dataclass(frozen=True)
class Metric:
    """One number of a run.

    Args:
        text: How it is written, such as "robust:snn@8/255".
        kind: Key of ``METRICS``.
        suite: Suite or attack line, for metrics under attack.
        eps: Radius.
    """

    text: str
    kind: str
    suite: str = ""
    eps: float = 0.0

    def of(self, run: Run) -> float:
        """Measure a run; what is stored in its folder is read.

        Raises:
            ConfigError: If the number is not finite.
        """
        found = METRICS[self.kind](run, self)
        if not math.isfinite(found):
            raise ConfigError(f"metric {self.text} of {run.path} is {found}.")
        return found

    def require(self, recipe: Recipe, built: Built) -> None:
        """Reject a metric that no run of a recipe can have; nothing is trained or written.

        Args:
            recipe: The recipe.
            built: What it describes.

        Raises:
            ConfigError: If there is no such suite, the radius is too large, validation images are
                missing, or spikes and operations cannot be counted.
        """
        from spikeguard.config.builder import build_suite

        if self.kind == "val_accuracy" and built.data.val is None:
            raise ConfigError("metric val_accuracy: the recipe has no validation images.")
        if self.kind in ("spikes", "synops"):
            _activity(built.model, built.data.test, recipe, n=1)
        if not self.suite:
            return
        problem = radius_problem(recipe.evaluate.norm, self.eps)
        if problem:
            raise ConfigError(f"metric {self.text!r}: {problem}")
        where = f"metric {self.text!r}"
        norm, plugins = recipe.evaluate.norm, recipe.plugins
        try:
            build_suite(self.suite, eps=self.eps, norm=norm, where=where, plugins=plugins)
        except ValueError as error:
            said = str(error).removeprefix(f"{where}: ")
            raise ConfigError(f"{where}: {said}") from error


def parse_metric(text: str) -> Metric:
    """Read a metric: a name, or "robust:SUITE@EPS" and "zero_gradient:SUITE@EPS".

    Raises:
        ConfigError: If the name is unknown, or suite or radius are missing.

    Example:
        >>> parse_metric("robust:snn@8/255").suite
        'snn'
    """
    found = _AT.fullmatch(text)
    if found:
        eps = parse_number(found[3])
        if not isinstance(eps, float | int) or not 0 < eps < math.inf:
            raise ConfigError(f"metric {text!r}: a radius is > 0, such as 8/255, got {found[3]!r}.")
        return Metric(text, found[1], found[2], float(eps))
    kind = text.partition(":")[0]
    if kind in ("robust", "zero_gradient"):
        raise ConfigError(f"metric {text!r}: name suite and radius, such as {kind}:snn@8/255.")
    if text not in METRICS:
        raise unknown_name("", "metric", text, METRICS)
    return Metric(text, text)


def _clean(run: Run) -> Evaluation:
    """Evaluate the test images of the recipe's evaluate section, without attacks."""
    from spikeguard.evaluation.evaluator import evaluate

    plan = run.recipe.evaluate
    return evaluate(
        run.model,
        run.data.test,
        {},
        seed=run.recipe.seed,
        limit=plan.limit,
        batch_size=plan.batch_size,
        check=False,
        progress=None,
    )


def _accuracy(run: Run, metric: Metric) -> float:
    """Accuracy on clean test images."""
    return _clean(run).clean.accuracy


def _val_accuracy(run: Run, metric: Metric) -> float:
    """Validation accuracy of the best epoch."""
    return float(json.loads((run.path / RESULT).read_text(encoding="utf-8"))["val_accuracy"])


def _robust(run: Run, metric: Metric) -> float:
    """Accuracy under the strongest attack of a suite for each image: robust:snn@8/255."""
    return run.evaluate(metric.suite, eps=metric.eps).worst_case.accuracy


def _zero_gradient(run: Run, metric: Metric) -> float:
    """Share of images whose input gradient is zero: zero_gradient:snn@8/255."""
    return float(run.evaluate(metric.suite, eps=metric.eps).zero_gradient)


def _spikes(run: Run, metric: Metric) -> float:
    """Spikes of all layers for a clean test image."""
    return _activity(run.model, run.data.test, run.recipe).spikes.mean


def _synops(run: Run, metric: Metric) -> float:
    """Synaptic operations for a clean test image: accumulate and multiply-accumulate together."""
    return _activity(run.model, run.data.test, run.recipe).operations


def _activity(
    model: nn.Module, images: ImageSet, recipe: Recipe, n: int | None = None
) -> ActivityCost:
    """Count on the first test images, as an evaluation of the run does."""
    from spikeguard.evaluation.activity import activity_cost

    plan = recipe.evaluate
    n = n or plan.limit or len(images)
    found = activity_cost(model, images, n=n, seed=recipe.seed, batch_size=plan.batch_size)
    if found is None:
        raise ConfigError(f"{recipe.label}: its spikes and operations cannot be counted.")
    return found


def _near_threshold(run: Run, metric: Metric) -> float:
    """Share of membrane potentials near the threshold."""
    return run.membrane().near_threshold


METRICS: Mapping[str, Callable[[Run, Metric], float]] = {
    "accuracy": _accuracy,
    "val_accuracy": _val_accuracy,
    "robust": _robust,
    "zero_gradient": _zero_gradient,
    "spikes": _spikes,
    "synops": _synops,
    "near_threshold": _near_threshold,
}
