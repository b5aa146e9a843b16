"""Dimensions: known values, bad input in one line each, and the recipe changes of a point."""

import pytest

from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import load_recipe
from spikeguard.sweeps.space import Dimension, changes_of, grid, parse_dimension


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("train.lr=0.001,1/100", "train.lr", (0.001, 0.01)),
        ("neuron.v_th=0.5:1.5:3", "model.neuron.v_th", (0.5, 1.0, 1.5)),
        (
            "objective.tgo.lambda_max=0.2:0.6:5",
            "objective.tgo.lambda_max",
            (0.2, 0.3, 0.4, 0.5, 0.6),
        ),
        ("train.lr=1e-4:1e-1:4:log", "train.lr", (1e-4, 1e-3, 1e-2, 1e-1)),
        ("neuron.v_th=1/255:3/255:3", "model.neuron.v_th", (1 / 255, 2 / 255, 3 / 255)),
        ("model.T=2:8:4", "model.T", (2, 4, 6, 8)),
        ("model.T=2:4:2:log", "model.T", (2, 4)),
        ("train.batch_size=16:128:4:log", "train.batch_size", (16, 32, 64, 128)),
        ("train.epochs=1:1000:4:log", "train.epochs", (1, 10, 100, 1000)),
        ("train.epochs=1:10:3:log", "train.epochs", (1.0, 10**0.5, 10.0)),
        ("train.lr=1e0,1e30,3", "train.lr", (1.0, 1e30, 3)),
        ("train.lr=1e0:1e1:2", "train.lr", (1.0, 10.0)),
        ("train.optimizer=adam,sgd", "train.optimizer", ("adam", "sgd")),
        ("data.name=my_data:load", "data.name", ("my_data:load",)),
        ("evaluate.eps=[0.1, 0.2]", "evaluate.eps", ("[0.1, 0.2]",)),
        ("encoder.name=direct,poisson", "model.encoder.name", ("direct", "poisson")),
    ],
)
def test_a_dimension_has_these_values(text, field, values):
    found = parse_dimension(text)
    assert found.field == field
    assert found.values == pytest.approx(values) if found.ranged else found.values == values
    assert [type(value) for value in found.values] == [type(value) for value in values]


def test_the_ends_of_a_range_are_exact():
    found = parse_dimension("neuron.tau=1.001:5:10")
    assert (found.values[0], found.values[-1], len(found.values)) == (1.001, 5.0, 10)
    assert parse_dimension("train.lr=1e-3:0.7:7:log").values[-1] == 0.7


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("neuron.v_th", "a dimension is FIELD=low:high:n"),
        ("=1,2", "a dimension is FIELD=low:high:n"),
        ("neuron.v_th=", "a dimension is FIELD=low:high:n"),
        ("neuron.v_th=1,,2", "a value between two commas is empty, got '1,,2'"),
        ("neuron.v_th=1,", "is empty"),
        ("neuron.v_th=1:2:10001", "a range has at most 10,000 values"),
        ("neuron.v_th=1.5:0.5:3", "goes from low to high, got '1.5:0.5:3'"),
        ("neuron.v_th=1:1:3", "goes from low to high"),
        ("neuron.v_th=0:inf:3", "goes from low to high"),
        ("neuron.v_th=0.5:1.5", "a range is low:high:n"),
        ("neuron.v_th=0.5:1.5:x", "a range is low:high:n"),
        ("neuron.v_th=0.5:1.5:1", "whole number of values >= 2"),
        ("neuron.v_th=0.5:1.5:2.5", "whole number of values >= 2"),
        ("neuron.v_th=0:1:3:log", "spaced by equal factors are > 0"),
        ("neuron.v_th=0.5:1.5:3:lin", "a range is low:high:n"),
        ("neuron.v_th=0.5,0.5", "a value is given twice, got 0.5, 0.5"),
        ("neuron.v_th=1,1.0", "a value is given twice"),
    ],
)
def test_a_wrong_dimension_is_one_line(text, part):
    with pytest.raises(ConfigError) as caught:
        parse_dimension(text)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_grid_varies_the_last_field_fastest():
    found = grid([Dimension("a", (1, 2)), Dimension("b", (3, 4))])
    assert found == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]


def test_changes_reach_the_recipe_and_a_time_constant_sets_decay_and_input_scale():
    point = {"model.neuron.tau": 4.0, "train.optimizer": "sgd", "train.lr": 1e-7, "model.T": 3}
    recipe = load_recipe("demo/vanilla", changes_of(point))
    assert recipe.model["neuron"]["decay"] == 0.75
    assert recipe.model["neuron"]["input_scale"] == 0.25
    assert (recipe.train["optimizer"], recipe.train["lr"], recipe.model["T"]) == ("sgd", 1e-7, 3)


@pytest.mark.parametrize("tau", [0.5, "long"])
def test_a_time_constant_below_one_step_is_rejected(tau):
    with pytest.raises(ConfigError, match=r"a time constant in steps is >= 1"):
        changes_of({"model.neuron.tau": tau})
