"""The cost before the start: steps counted by hand; what is built before anything is written."""

import math

import pytest

from spikeguard.config import builder
from spikeguard.config.errors import ConfigError
from spikeguard.evaluation.cost_estimate import Estimate
from spikeguard.maps.plan import MapPlan
from spikeguard.sweeps import cost as module
from spikeguard.sweeps.cost import Cost, require_points, require_reachable, time_points
from spikeguard.sweeps.metrics import parse_metric
from spikeguard.sweeps.space import parse_dimension
from spikeguard.sweeps.trial import Plan
from tests.toys.sweeps import TINY


def plan(tmp_path, *changes, seeds=(0,)):
    return Plan("demo/vanilla", (*TINY, *changes), seeds, ("accuracy",), tmp_path / "s")


def test_steps_are_counted_and_timed(tmp_path, monkeypatch):
    """54 of 60 images remain for training: 2 batches of 32, in 3 epochs, at 2 seeds."""
    monkeypatch.setattr(module, "_step_seconds", lambda built: 0.5)
    of = plan(tmp_path, "train.epochs=3", seeds=(0, 1))
    found = time_points(of, [{"model.neuron.v_th": 1.0}], [parse_metric("accuracy")])
    assert found == Cost(steps=12, training=6.0, attacks=0.0)


def test_only_the_images_that_are_attacked_cost_attacks(tmp_path, monkeypatch):
    """A map attacks 5 of the 12 test images; a sweep all of the recipe's."""
    seen = []

    def estimate(*_, limit, **__):
        seen.append(limit)
        return Estimate(1, 1.0, 1.0)

    monkeypatch.setattr(module, "estimate", estimate)
    monkeypatch.setattr(module, "_step_seconds", lambda built: 0.5)
    metrics = [parse_metric("robust:fgsm@0.1")]
    of = MapPlan("demo/vanilla", TINY, (0,), ("accuracy",), tmp_path, robust_images=5)
    time_points(of, [{}], metrics)
    time_points(plan(tmp_path, "evaluate.limit=7"), [{}], metrics)
    assert seen == [5, 7]


def test_the_mean_of_the_ends_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_step_seconds", lambda built: 0.5)
    ends = [{"train.epochs": 1}, {"train.epochs": 5}]
    assert time_points(plan(tmp_path), ends, []) == Cost(steps=6, training=3.0, attacks=0.0)


@pytest.mark.usefixtures("untouched_global_generator")
def test_a_real_step_and_a_real_attack_take_some_time_and_write_nothing(tmp_path):
    metrics = [parse_metric("robust:fgsm@0.1"), parse_metric("zero_gradient:fgsm@0.1")]
    once = time_points(plan(tmp_path), [{}], metrics)
    assert 0 < once.training < math.inf and 0 < once.attacks < math.inf
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (Cost(100, 60.0, 0.0), "10 points, 100 optimiser steps each: about 10.0 min of training"),
        (
            Cost(2000, 60.0, 30.0),
            "10 points, 2,000 optimiser steps each: about 10.0 min of training, "
            "at most 5.0 min of attacks",
        ),
        (
            Cost(1, 60.0, math.inf),
            "10 points, 1 optimiser steps each: about 10.0 min of training; "
            "the cost of the attacks is unknown",
        ),
    ],
)
def test_the_cost_is_one_line(cost, text):
    assert cost.text(10, jobs=1) == text


def test_workers_share_the_work(monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    for jobs, seconds in ((1, 20), (2, 10), (8, 10)):
        assert f"about {seconds} s" in Cost(1, 5.0, 0.0).text(4, jobs)


def test_a_budget_reaches_one_point_or_is_rejected():
    require_reachable(Cost(10, 59.0, 1e9), 60.0)
    with pytest.raises(ConfigError, match=r"--budget: 1.0 min is less than .* 10 optimiser steps"):
        require_reachable(Cost(10, 61.0, 0.0), 60.0)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        (["train.optimizer=adam,sgd,rmsprob"], "rmsprob"),  # the last of a list
        (["neuron.decay=0.5:1.5:3"], "decay"),  # the end of a range
        (["neuron.tau=0.5:2:3"], "time constant"),
        (["neuron.v_th=0.5:1:2", "train.batch_size=8,0"], "batch_size"),
        (["objective.tgo.lambda_max=1,2"], "objective"),
    ],
)
def test_every_value_of_a_list_and_the_ends_of_a_range_are_built(tmp_path, fields, part):
    with pytest.raises(ConfigError) as caught:
        require_points(plan(tmp_path), [parse_dimension(text) for text in fields], [])
    assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_images_are_loaded_once_for_all_points_that_share_them(tmp_path, monkeypatch):
    loaded, load = [], builder.load_data

    def counted(recipe, data_root):
        loaded.append(recipe.data.train_limit)
        return load(recipe, data_root)

    monkeypatch.setattr(builder, "load_data", counted)
    fields = ["train.optimizer=adam,sgd", "neuron.v_th=1,2", "data.train_limit=60,70"]
    require_points(plan(tmp_path), [parse_dimension(text) for text in fields], [])
    assert loaded == [60, 70]


def test_valid_points_are_accepted(tmp_path):
    fields = ["train.optimizer=adam,sgd", "neuron.decay=0.5:1:3", "neuron.v_th=1,2"]
    require_points(plan(tmp_path), [parse_dimension(text) for text in fields], [])
