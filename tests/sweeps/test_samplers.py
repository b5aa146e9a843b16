"""Samplers: what fits which search, draws that depend on seed and number alone."""

import importlib.util

import pytest

from spikeguard.config.errors import ConfigError
from spikeguard.sweeps.samplers import (
    SAMPLERS,
    distributions,
    make_sampler,
    require_sampler,
)
from spikeguard.sweeps.space import parse_dimension

RANGES = [parse_dimension("a=0:1:3"), parse_dimension("b=1:100:3:log")]
LISTED = [*RANGES, parse_dimension("c=x,y")]


def draws(name, seed, n, dimensions=LISTED):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for drawn in range(n):
        study.sampler = make_sampler(name, seed=seed, trials=24, drawn=drawn)
        trial = study.ask(distributions(dimensions))
        study.tell(trial, -((trial.params["a"] - 0.3) ** 2))
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2", "nsga3"])
def test_a_seed_names_all_draws_and_the_first_ones_differ(name):
    found = draws(name, 0, 12)
    assert draws(name, 0, 12) == found != draws(name, 1, 12)
    assert len({str(point) for point in found[:4]}) == 4  # a later child may equal a parent
    assert all(0 <= p["a"] <= 1 and 1 <= p["b"] <= 100 and p["c"] in "xy" for p in found)


def test_a_genetic_search_comes_near_the_known_optimum():
    late = draws("nsga2", 0, 24)[-8:]
    assert sum(abs(point["a"] - 0.3) for point in late) / 8 < 0.2  # 0.29 for uniform draws


def test_only_cmaes_has_conditions():
    for name in set(SAMPLERS) - {"cmaes"}:
        require_sampler(name, LISTED, 3)


@pytest.mark.parametrize(
    ("name", "dimensions", "objectives", "part"),
    [
        ("genetic", RANGES, 1, "--sampler: one of grid, random"),
        ("cmaes", RANGES, 2, "optimises one metric"),
        ("cmaes", LISTED, 1, "c is a list of values"),
        ("cmaes", RANGES[:1], 1, "there is one field"),
    ],
)
def test_a_sampler_that_does_not_fit_is_one_line(name, dimensions, objectives, part):
    with pytest.raises(ConfigError, match=part):
        require_sampler(name, dimensions, objectives)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs the package cmaes; pip install .spikeguard.cmaes"
    ):
        require_sampler("cmaes", RANGES, 1)


def test_cmaes_comes_near_the_known_optimum():
    """The mean of 0.3 of the last 10 of 60 draws; a uniform draw is 0.29 away."""
    pytest.importorskip("cmaes")
    require_sampler("cmaes", RANGES, 1)
    late = draws("cmaes", 0, 60, RANGES)[-10:]
    assert sum(abs(point["a"] - 0.3) for point in late) / 10 < 0.15
