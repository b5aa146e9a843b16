"""A run attacked with more time steps than it was trained with."""

import numpy as np
import pytest
import torch

from spikeguard.cli.entry import main
from spikeguard.config import build, load_recipe
from spikeguard.config.errors import ConfigError
from spikeguard.runs.other_steps import run_at_steps
from spikeguard.runs.recipe_training import train_recipe
from spikeguard.runs.run import Run

pytestmark = pytest.mark.slow

SMALL = [
    "data.train_limit=40",
    "data.test_limit=8",
    "train.epochs=1",
    "model.width=2",
    "model.hidden=8",
    "model.T=2",
    "model.neuron.v_th=0.1",  # every layer fires after one epoch
    "evaluate.limit=",
]
ATTACK = ["--attack", "pgd steps=2", "--eps", "0.1", "--no-check"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("steps") / "run"
    train_recipe(load_recipe("demo/vanilla", SMALL), path)
    return path


def outcomes(folder):
    """The worst-case inputs, as arrays."""
    (file,) = folder.glob("attacks/*.worst.npz")
    with np.load(file) as found:
        return {name: found[name].tolist() for name in found.files}


def test_the_network_is_that_of_more_steps_with_the_same_weights(trained):
    run = Run.load(trained)
    found = run_at_steps(run, 5, out=None)
    expected = build(load_recipe("demo/vanilla", [*SMALL, "model.T=5"])).model.eval()
    expected.load_state_dict(run.model.state_dict())
    x, _ = run.data.test.batch(slice(8))
    with torch.no_grad():
        assert torch.equal(found.model.eval()(x), expected(x))
        assert not torch.equal(expected(x), run.model.eval()(x))
    again, images = found.reload()
    assert (again.T, images.digest) == (5, run.data.test.digest)
    assert found.path == trained / "on" / "T5"


def test_the_trained_steps_give_the_results_of_the_run(trained):
    assert main(["attack", str(trained), *ATTACK]) == 0
    assert main(["attack", str(trained), "--T", "2", *ATTACK]) == 0
    assert outcomes(trained) == outcomes(trained / "on" / "T2") != {}


def test_results_are_not_mixed_with_those_of_other_steps(trained, capsys):
    out = str(trained / "elsewhere")
    assert main(["attack", str(trained), "--T", "3", "--out", out, *ATTACK]) == 0
    capsys.readouterr()
    assert main(["attack", str(trained), "--T", "4", "--out", out, *ATTACK]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--T", "0"], "--T: time steps are a whole number >= 1, got 0"),
        (["--T", "3", "--data", "digits"], "other steps or on other data, got both"),
        (["--device", "cuda"], "--device cuda: torch sees no CUDA device"),
        (["--out", "there"], "--out goes with --model or --data"),
    ],
)
def test_bad_input_is_one_line(trained, capsys, words, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["attack", str(trained), *words, *ATTACK]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_network_with_parts_for_each_step_is_refused(tmp_path):
    train_recipe(
        load_recipe("demo/vanilla", [*SMALL, "model.neuron={name: dlif}"]), tmp_path / "run"
    )
    with pytest.raises(ConfigError, match="--T: the network has parts for its 2 steps"):
        run_at_steps(Run.load(tmp_path / "run"), 4, out=None)
