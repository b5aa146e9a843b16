"""How a search chooses its points: samplers, what they choose from, and when a trial is stopped."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spikeguard.config.errors import ConfigError
from spikeguard.sweeps.space import Dimension

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

__all__ = ["SAMPLERS", "distributions", "make_pruner", "make_sampler", "require_sampler"]

SAMPLERS = ("grid", "random", "tpe", "nsga2", "nsga3", "cmaes")
_UNPRUNED = 4  # trials that finish before any is stopped
_WARMUP = 2  # the first epoch after which one may be stopped


def make_sampler(name: str, *, seed: int, trials: int | None, drawn: int = 0) -> BaseSampler:
    """Return the sampler of one draw.

    Workers share the history of the study and no state, so each draw has a sampler and a random
    stream of its own; two workers with one stream would draw the same points.

    Args:
        name: One of ``SAMPLERS``; a grid is enqueued, and its sampler draws nothing.
        seed: Seed of the search.
        trials: Number of points of the search; a genetic search has at least six generations of at
            least four points.
        drawn: Number of points drawn before.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    stream = (seed * 1_000_003 + drawn) % 2**32
    population = max(4, min(50, (trials or 0) // 6))
    made: dict[str, tuple[Any, dict[str, Any]]] = {
        "grid": (samplers.RandomSampler, {}),
        "random": (samplers.RandomSampler, {}),
        "tpe": (samplers.TPESampler, {"constant_liar": True}),
        "nsga2": (samplers.NSGAIISampler, {"population_size": population}),
        "nsga3": (samplers.NSGAIIISampler, {"population_size": population}),
        "cmaes": (samplers.CmaEsSampler, {"warn_independent_sampling": False}),
    }
    kind, options = made[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        found: BaseSampler = kind(seed=stream, **options)
    return found


def require_sampler(name: str, dimensions: Sequence[Dimension], objectives: int) -> None:
    """Reject a sampler that does not fit the search.

    Raises:
        ConfigError: If it is unknown, or CMA-ES has several objectives, a list of values, a single
            field, or no package cmaes.
    """
    from importlib.util import find_spec

    if name not in SAMPLERS:
        raise ConfigError(f"--sampler: one of {', '.join(SAMPLERS)}, got {name!r}.")
    if name != "cmaes":
        return
    if objectives != 1:
        raise ConfigError("--sampler cmaes: optimises one metric; use nsga2 or tpe for several.")
    listed = [each.field for each in dimensions if not each.ranged]
    if listed or len(dimensions) < 2:
        what = f"{listed[0]} is a list of values" if listed else "there is one field"
        raise ConfigError(f"--sampler cmaes: needs two ranges low:high:n or more, {what}; use tpe.")
    if find_spec("cmaes") is None:
        raise ConfigError(
            "--sampler cmaes: needs the package cmaes; pip install 'spikeguard[cmaes]', or use tpe."
        )


def distributions(dimensions: Sequence[Dimension]) -> dict[str, BaseDistribution]:
    """Return what a sampler may choose from, by field."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, BaseDistribution] = {}
    for each in dimensions:
        if not each.ranged:
            found[each.field] = CategoricalDistribution(each.values)
        elif each.whole:
            found[each.field] = IntDistribution(int(each.values[0]), int(each.values[-1]), each.log)
        else:
            low, high = float(each.values[0]), float(each.values[-1])
            found[each.field] = FloatDistribution(low, high, log=each.log)
    return found


def make_pruner(prune: bool) -> BasePruner:
    """Return the pruner: below the median of the finished trials in the same epoch, or none."""
    from optuna import pruners

    if not prune:
        return pruners.NopPruner()
    return pruners.MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=_WARMUP)
