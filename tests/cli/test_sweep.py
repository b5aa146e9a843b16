"""spikeguard sweep: the table, exit codes, bad input in one line, and what is not imported."""

import json
import shlex
import subprocess
import sys

import pytest

from spikeguard.cli.commands.sweep import number_text, seconds_of
from spikeguard.cli.entry import app, main
from spikeguard.config.errors import ConfigError
from tests.toys.sweeps import TINY

pytestmark = pytest.mark.slow

SWEEP = ["sweep", "demo/vanilla", *TINY]
GRID = ["neuron.v_th=0.25,0.5", "train.lr=0.01"]


NOISE_AND_PENALTY = (
    "sweep tgo/cifar10-vgg11 objective.tgo.lambda_max=0.2:0.6:5 model.neuron.sigma=0.2,0.4,0.632 "
    '--maximise "robust:snn@8/255" --minimise synops --trials 60'
)


def test_a_search_over_noise_and_penalty_can_be_parsed():
    words = shlex.split(NOISE_AND_PENALTY)
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command.__name__ == "sweep" and bound.arguments["trials"] == 60


def test_a_search_over_noise_and_penalty_can_be_planned(tmp_path, capsys):
    """The 15 points are built and timed on digits; the budget ends before the first training."""
    words = [*shlex.split(NOISE_AND_PENALTY), "data.name=digits", "data.augment="]
    words += ["data.train_limit=12", "data.test_limit=4", "model.T=2", "train.epochs=7"]
    words += ["--budget", "0.001s", "--out", str(tmp_path / "s")]
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "less than the training of one point, 7 optimiser steps" in shown.err
    assert shown.out == "" and list(tmp_path.iterdir()) == []


def test_a_sweep_prints_its_table_and_goes_on_where_it_stands(tmp_path, capsys):
    out = tmp_path / "s"
    words = [*SWEEP, *GRID, "--maximise", "accuracy", "--measure", "val_accuracy"]
    assert main([*words, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    head, first, second = shown.out.splitlines()[:3]
    assert head.split() == ["v_th", "accuracy", "val_accuracy", "best"]
    assert first.split()[0] == "0.25" and second.split()[0] == "0.5"
    assert f"2 of 2 points finished; table in {out}/sweep.json" in shown.out
    assert "2 points, 2 optimiser steps each: about 1 s of training" in shown.err
    assert "sweep: points (1/2" in shown.err

    assert main([*words, "--out", str(out), "--resume", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["folder"] == str(out) and found["left"] == 0 and found["failed"] == []
    assert [record["point"] for record in found["records"]] == [
        {"model.neuron.v_th": 0.25},
        {"model.neuron.v_th": 0.5},
    ]
    assert "epoch" not in shown.err
    recipe = (out / found["records"][0]["runs"][0] / "recipe.yaml").read_text()
    assert "lr: 0.01" in recipe


def test_a_search_over_two_objectives_marks_its_front(tmp_path, capsys):
    words = [*SWEEP, "neuron.v_th=0.25:1:9", "--trials", "2", "--maximise", "accuracy"]
    words += ["--minimise", "near_threshold", "--out", str(tmp_path / "s"), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["records"]) == 2 and found["best"]


def test_a_search_stops_real_trainings_early(tmp_path, capsys):
    words = [*SWEEP, "train.epochs=3", "data.train_limit=400", "train.lr=1e-6:1e-1:4:log"]
    words += [
        "model.width=8",
        "model.hidden=32",
        "train.batch_size=16",
        "--sampler",
        "random",
        "--trials",
        "9",
        "--maximise",
        "val_accuracy",
        "--prune",
    ]
    assert main([*words, "--out", str(tmp_path / "s"), "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert len(found["records"]) + len(found["stopped"]) == 9 and found["stopped"]
    assert "stopped early: train.lr=" in shown.err


def test_a_failed_point_is_shown_and_is_exit_code_1(tmp_path, capsys):
    """A training that diverges: its learning rate is absurd."""
    words = [*SWEEP, "train.lr=0.01,1e30", "train.optimizer=sgd", "--maximise", "accuracy"]
    assert main([*words, "--out", str(tmp_path / "s")]) == 1
    shown = capsys.readouterr().out
    assert "1 of 2 points finished" in shown
    assert "1 failed; run again with --retry-failed" in shown
    assert "failed: train.lr=1e+30: TrainingDiverged: " in shown


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["neuron.v_thh=1,2", "--maximise", "accuracy"], "Did you mean 'v_th'?"),
        (["neuron.v_th=2:1:3", "--maximise", "accuracy"], "goes from low to high, got '2:1:3'"),
        (["neuron.v_th=1:1:3", "--maximise", "accuracy"], "goes from low to high"),
        (["neuron.v_th=1,,2", "--maximise", "accuracy"], "a value between two commas is empty"),
        (["neuron.v_th=1:2:10001", "--maximise", "accuracy"], "at most 10,000 values"),
        (["objective.tgo.lambda_max=1,2", "--maximise", "accuracy"], "objective.tgo"),
        (["seed=1,2", "--maximise", "accuracy"], "write --seeds"),
        (["neuron.v_th=1,2", "--maximise", "robust:snn"], "name suite and radius"),
        (
            ["neuron.v_th=1,2", "data.val_fraction=0", "--maximise", "val_accuracy"],
            "the recipe has no validation images",
        ),
        (
            [
                *("neuron.v_th=1:2:3", "neuron.tau=2:3:3", "--maximise", "accuracy"),
                *("--sampler", "cmaes", "--trials", "4", "--minimise", "synops"),
            ],
            "optimises one metric",
        ),
        (["neuron.v_th=1,2", "--maximise", "acuracy"], "Did you mean 'accuracy'?"),
        (["neuron.v_th=1,2", "--maximise", "robust:snnn@0.1"], "unknown suite 'snnn'"),
        (["neuron.v_th=1,2"], "name a metric to --maximise or --minimise"),
        (["neuron.v_th=1", "--maximise", "accuracy"], "varies at least one field"),
        (["neuron.v_th=1,2", "--maximise", "accuracy", "--seeds", "0,0"], "--seeds: whole"),
        (["neuron.v_th=1,2", "--maximise", "accuracy", "--seeds", "x"], "--seeds: whole"),
        (["neuron.v_th=1,2", "--maximise", "accuracy", "--budget", "30"], "--budget: a time"),
        (["neuron.v_th=1,2", "--maximise", "accuracy", "--budget", "0h"], "--budget: a time"),
        (["neuron.v_th=1,2", "--maximise", "accuracy", "--sampler", "gird"], "gird"),
        (["neuron.v_th=1,2", "--maximise", "accuracy", "--jobs", "0"], "--jobs counts"),
        (["neuron.v_th=1,2", "--maximise", "accuracy", "data.name=cifar10"], "cifar10"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, words, part):
    given = [*words, "--out", str(tmp_path / "s"), "--data-root", str(tmp_path / "none")]
    assert main([*SWEEP, *given]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and part in shown.err
    assert list(tmp_path.iterdir()) == []


def test_cmaes_without_its_package_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    words = [*SWEEP, "neuron.v_th=1:2:3", "neuron.tau=2:3:3", "--maximise", "accuracy"]
    words += ["--sampler", "cmaes", "--trials", "4", "--out", str(tmp_path / "s")]
    assert main(words) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line == (
        "spikeguard sweep: --sampler cmaes: needs the package cmaes; "
        "pip install 'spikeguard[cmaes]', or use tpe."
    )
    assert shown.out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("90s", 90), ("1.5m", 90), ("8h", 28800), ("2d", 172800)]
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.1235"), (144912.3, "144,912"), (1e30, "1e+30"), (3, "3")]
)
def test_numbers_of_the_table(value, text):
    assert number_text(value) == text


def test_a_wrong_duration():
    with pytest.raises(ConfigError, match="a time such as 90s, 30m or 8h, got '8 hours'"):
        seconds_of("8 hours")


def test_optuna_is_imported_by_sweeps_only():
    code = (
        "import sys, spikeguard, spikeguard.sweeps; from spikeguard.cli import main\n"
        "assert main(['sweep', '--help']) == 0\n"
        "assert main(['list', 'metrics']) == 0\n"
        "assert 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
