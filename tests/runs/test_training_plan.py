"""The plan of a training before it starts: train --dry-run, and the warning of little memory."""

import json
import warnings

import pytest

from spikeguard.cli.entry import main
from spikeguard.data.photos import reading_ahead
from spikeguard.training import memory_plan
from tests.toys.photos import write_imagenet

SMALL = ["data.train_limit=60", "data.test_limit=12", "model.T=2", "model.width=2"]
SMALL += ["model.hidden=8", "train.epochs=3", "train.batch_size=16", "evaluate.limit=4"]


def lines(text):
    return {line[:15].strip(): line[15:] for line in text.splitlines()}


def test_a_dry_run_says_what_the_training_takes_and_writes_nothing(tmp_path, capsys, monkeypatch):
    """54 of 60 images are trained on, 4 steps an epoch."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "demo/vanilla", *SMALL, "--dry-run"]) == 0
    found = lines(capsys.readouterr().out)
    assert found["steps"] == "12 in 3 epochs"
    assert found["data"].endswith(", 54 images 1 x 8 x 8")
    assert found["memory"].startswith("about ") and "16 images at once" in found["memory"]
    assert found["time"].startswith("at most about ")
    assert "reading" not in found
    assert list(tmp_path.iterdir()) == []
    assert main(["train", "demo/vanilla", *SMALL, "--dry-run", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)["dry_run"]
    assert (numbers["steps"], numbers["images"]) == (12, 54)
    assert numbers["peak_bytes"] > 4 * numbers["weights"]


def test_a_recipe_of_imagenet_is_planned_with_its_reading(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(reading_ahead.WORKERS, "0")
    write_imagenet(tmp_path / "imagenet", train=12, val=6)
    words = ["data.size=32", "model.width=0.05", "model.T=2", "evaluate.limit=4", "train.epochs=2"]
    assert (
        main(["train", "imagenet/sew18-at", *words, "--dry-run", "--data-root", str(tmp_path)]) == 0
    )
    found = lines(capsys.readouterr().out)
    assert found["data"] == "imagenet/train, 12 images 3 x 32 x 32"
    assert found["steps"] == "2 in 2 epochs"
    assert "of decoding, added to it" in found["reading"]
    assert (
        main(["train", "imagenet/sew18-at", "--dry-run", "--data-root", str(tmp_path / "no")]) == 2
    )
    assert "train not found" in capsys.readouterr().err


@pytest.mark.slow
def test_too_little_memory_is_a_warning_before_any_work(tmp_path, capsys, monkeypatch):
    """The peak is one line; with a thousand bytes free, a second one says what to do."""
    out = tmp_path / "run"
    assert main(["train", "demo/vanilla", *SMALL, "--out", str(out)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("memory: about ") and "free" in said[0]
    assert not [line for line in said if "more than" in line]
    monkeypatch.setattr(memory_plan, "free_memory", lambda: 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["train", "demo/vanilla", *SMALL, "--out", str(tmp_path / "other")]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "more than" in line]
    assert len(said) == 1 and said[0].startswith("spikeguard train: the planned peak of memory, ")
    assert "not even 2 images fit; write train.checkpoint_activations=true" in said[0]
