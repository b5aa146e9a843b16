"""A run without validation images, from the command line to the report."""

import json

import pytest

from spikeguard.cli.entry import main
from spikeguard.runs.run import Run

pytestmark = pytest.mark.slow  # trains

SMALL = ["model.width=2", "model.hidden=8", "model.T=2", "train.epochs=2"]
SMALL += ["data.train_limit=60", "data.test_limit=12", "evaluate.limit=8", "evaluate.suite=quick"]


def test_it_is_trained_attacked_and_reported_and_cannot_be_tuned(tmp_path, capsys):
    path = tmp_path / "run"
    assert main(["train", "demo/at", *SMALL, "data.val_fraction=0", "--out", str(path)]) == 0
    assert "last epoch     2, no validation images" in capsys.readouterr().out
    assert [folder.name for folder in (path / "checkpoints").iterdir()] == ["last"]
    assert json.loads((path / "result.json").read_text())["train_samples"] == 60
    run = Run.load(path)
    assert run.data.val is None and len(run.data.train) == 60
    assert main(["attack", str(path), "--eps", "0.1"]) == 0
    assert main(["report", str(path)]) == 0
    capsys.readouterr()
    tuned = ["--suite", "snn-cascade", "--eps", "0.1", "--tune"]
    before = sorted(path.rglob("*"))
    assert main(["attack", str(path), *tuned]) == 2
    assert (
        capsys.readouterr()
        .err.rstrip()
        .endswith("--tune needs validation images, and there are none; set data.val_fraction.")
    )
    assert main(["audit", str(path), "--tune"]) == 2
    assert "--tune needs validation images" in capsys.readouterr().err
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["evaluate.checkpoint=best"], "write evaluate.checkpoint: last"),
        (["train.patience=3"], "got train.patience: 3; leave it out"),
        (["evaluate.tune=true", "evaluate.suite=snn-cascade"], "write evaluate.tune: false"),
    ],
)
def test_what_needs_validation_images_is_rejected_before_anything_is_written(
    changes, message, tmp_path, capsys
):
    path = tmp_path / "run"
    words = ["train", "demo/at", *SMALL, "data.val_fraction=0", *changes, "--out", str(path)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not path.exists()
