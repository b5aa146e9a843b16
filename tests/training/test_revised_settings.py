"""A run begun when a setting meant something else is not resumed; other old runs are."""

import json

import pytest

from spikeguard.cli.entry import main
from spikeguard.storage.digests import CHECKSUM, sealed

TINY = ["data.train_limit=40", "data.test_limit=4", "model.T=2", "model.width=2"]
TINY += ["evaluate.limit="]
TINY += ["model.hidden=8", "train.epochs=2", "train.batch_size=12", "train.checkpoint_seconds=0"]


class Killed(BaseException):
    pass


def begun(path, monkeypatch, *changes):
    """Begin a training, stop it after its first epoch; return the words that continue it."""
    from spikeguard.training.checkpointing import Checkpointer

    save = Checkpointer.save

    def dying(self, name, learner, state):
        save(self, name, learner, state)
        if name == "last" and state.epoch == 1:
            raise Killed

    words = ["train", "demo/tgo", *TINY, *changes, "--out", str(path)]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Checkpointer, "save", dying)
        main(words)
    return [*words, "--resume"]


def by_an_earlier_version(path):
    """Turn the checkpoint into that of a version that did not store what was revised."""
    file = path / "checkpoints" / "last" / "state.json"
    header = json.loads(file.read_text())
    revised = header["info"]["run"].pop("revised", None)
    del header[CHECKSUM]
    file.write_text(json.dumps(sealed(header)))
    return revised


def test_an_old_run_of_the_undivided_sum_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    words = begun(path, monkeypatch, "objective.tgo.reduction=sum")
    assert by_an_earlier_version(path) is not None
    capsys.readouterr()
    assert main(words) == 2
    _, line = capsys.readouterr().err.strip().splitlines()  # the first is on memory
    assert "an earlier version began this run, and TGO's reduction 'sum' is now divided" in line
    assert "train it again in another folder" in line
    assert not (path / "result.json").exists()


@pytest.mark.parametrize(
    ("reduction", "old"), [("sum", False), ("mean", True), ("sum_of_layers", True)]
)
def test_a_run_whose_settings_mean_the_same_is_resumed(reduction, old, tmp_path, monkeypatch):
    path = tmp_path / "run"
    words = begun(path, monkeypatch, f"objective.tgo.reduction={reduction}")
    if old:
        assert by_an_earlier_version(path) is None
    assert main(words) == 0
    assert json.loads((path / "result.json").read_text())["epochs"] == 2
