"""Metrics: how they are written, and which no run of a recipe can have."""

import pytest

from spikeguard.config.builder import build
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import load_recipe
from spikeguard.sweeps.metrics import METRICS, Metric, parse_metric

TINY = ["data.train_limit=60", "data.test_limit=12", "evaluate.limit="]


def test_a_metric_under_attack_has_suite_and_radius():
    assert parse_metric("robust:snn@8/255") == Metric("robust:snn@8/255", "robust", "snn", 8 / 255)
    assert parse_metric("zero_gradient:pgd steps=3@0.1").suite == "pgd steps=3"
    assert parse_metric("accuracy") == Metric("accuracy", "accuracy")


def test_every_metric_has_a_line_of_description():
    assert all((measure.__doc__ or "").strip() for measure in METRICS.values())


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("acuracy", "unknown metric 'acuracy'. Did you mean 'accuracy'?"),
        ("robust", "name suite and radius, such as robust:snn@8/255"),
        ("robust:snn", "name suite and radius"),
        ("zero_gradient:@0.1", "name suite and radius"),
        ("robust:snn@0", "a radius is > 0, such as 8/255, got '0'"),
        ("robust:snn@much", "a radius is > 0"),
        ("robust:snn@inf", "a radius is > 0"),
        ("clean:snn@0.1", "unknown metric"),
    ],
)
def test_a_wrong_metric_is_one_line(text, part):
    with pytest.raises(ConfigError) as caught:
        parse_metric(text)
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "changes", "part"),
    [
        ("robust:snnn@0.1", [], "unknown suite 'snnn'. Did you mean 'snn'?"),
        ("robust:pgd stepz=3@0.1", [], "stepz"),
        ("robust:snn@8", [], "did you mean 8/255?"),
        (
            "val_accuracy",
            ["data.val_fraction=0", "evaluate.checkpoint=last"],
            "the recipe has no validation images",
        ),
    ],
)
def test_a_metric_that_no_run_has_is_rejected_before_the_start(text, changes, part):
    recipe = load_recipe("demo/vanilla", [*TINY, *changes])
    built = build(recipe)
    with pytest.raises(ConfigError) as caught:
        parse_metric(text).require(recipe, built)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_metrics_that_a_run_has_are_accepted():
    recipe = load_recipe("demo/vanilla", TINY)
    built = build(recipe)
    named = [name for name in METRICS if name not in ("robust", "zero_gradient")]
    for text in (*named, "robust:snn-short@0.1", "robust:pgd steps=3@0.1"):
        parse_metric(text).require(recipe, built)


@pytest.mark.parametrize("name", ["spikes", "synops"])
def test_a_network_that_cannot_be_counted_is_rejected_before_the_start(name, monkeypatch):
    monkeypatch.setattr("spikeguard.evaluation.activity.activity_cost", lambda *a, **b: None)
    recipe = load_recipe("demo/vanilla", TINY)
    with pytest.raises(ConfigError, match="its spikes and operations cannot be counted"):
        parse_metric(name).require(recipe, build(recipe))


def test_a_number_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setitem(METRICS, "accuracy", lambda run, metric: float("nan"))

    class Run:
        path = "there"

    with pytest.raises(ConfigError, match="metric accuracy of there is nan"):
        parse_metric("accuracy").of(Run())
