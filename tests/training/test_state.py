"""A stored training state: every edit is found, out-of-range fields are one line."""

import json
from dataclasses import asdict

import pytest
import torch

from spikeguard.data import ImageSet, Splits
from spikeguard.models import MLP
from spikeguard.storage.checkpoints import INFO, CheckpointError
from spikeguard.storage.digests import CHECKSUM, sealed
from spikeguard.training.options import TrainOptions
from spikeguard.training.state import TrainState
from spikeguard.training.trainer import train

LINE = {
    "epoch": 1,
    "step": 3,
    "lr": 0.1,
    "progress": 0.5,
    "terms": {"cross_entropy": 1.0},
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "val_loss": 1.0,
    "val_accuracy": 0.5,
    "seconds": 1.0,
}
STATE = asdict(TrainState(1, 2, 8, 4, {"cross_entropy": 3.0}, {}, 0.5, [LINE]))


def test_a_state_is_read_back():
    assert asdict(TrainState.from_json(json.loads(json.dumps(STATE)), 2, 3)) == STATE
    fresh = asdict(TrainState())
    assert asdict(TrainState.from_json(fresh, 2, 3)) == fresh


def test_a_state_of_an_older_version_is_read():
    older = {name: value for name, value in STATE.items() if name != "unweighted"}
    assert asdict(TrainState.from_json(older, 2, 3)) == STATE


def test_a_state_without_a_validation_is_read_back():
    line = LINE | {"val_loss": None, "val_accuracy": None}
    assert TrainState.from_json(STATE | {"history": [line]}, 2, 3).history == [line]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"epoch": 99}, "position.epoch=99 is out of range"),
        ({"epoch": -1}, "position.epoch=-1 is out of range"),
        ({"epoch": "1"}, "position.epoch cannot be '1'"),
        ({"epoch": True}, "position.epoch cannot be True"),
        ({"epoch": 2}, "position.history has 1 epochs, position.epoch is 2"),
        ({"batch": 4}, "position.batch=4 is out of range"),
        ({"batch": 0}, "position.samples does not fit"),
        ({"samples": 0}, "position.samples does not fit"),
        ({"correct": 9}, "position.samples does not fit"),
        ({"seconds": None}, "position.seconds cannot be None"),
        ({"seconds": -1.0}, "position.seconds=-1.0 is out of range"),
        ({"losses": []}, "position.losses cannot be []"),
        ({"losses": {"a": "b"}}, "position.losses holds"),
        ({"unweighted": {"tgo": [1.0]}}, "position.unweighted holds"),
        ({"history": {}}, "position.history cannot be {}"),
        ({"history": [3]}, "position.history[0] is no line"),
        ({"history": [LINE | {"val_accuracy": 7}]}, "position.history[0] is no line"),
        ({"history": [{k: LINE[k] for k in LINE if k != "terms"}]}, "position.history[0]"),
        ({"step": 3}, "position has the fields epoch, batch"),
    ],
)
def test_a_field_out_of_range_is_named(change, part):
    with pytest.raises(ValueError, match="position") as error:
        TrainState.from_json(STATE | change, 2, 3)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


# --- in the folder of a run that was stopped


def data():
    generator = torch.Generator().manual_seed(0)
    images = ImageSet(torch.rand(12, 1, 4, 4, generator=generator), torch.arange(12) % 3, 3, "r")
    return Splits(images, images, images, (0.5,), (0.5,))


def model():
    generator = torch.Generator().manual_seed(0)
    return MLP(16, 3, T=2, hidden=(4,), in_shape=(1, 4, 4), generator=generator)


def run(out, **options):
    chosen = TrainOptions(epochs=2, batch_size=4, checkpoint_seconds=0, optimizer="adam")
    return train(model(), data(), None, chosen, out=out, **options)


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that was stopped within its second epoch, and its state.json."""

    def stop(done, total, what):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", progress=stop)
    return tmp_path / "run", tmp_path / "run" / "checkpoints" / "last" / INFO


def test_every_edited_digit_is_found(stopped):
    path, file = stopped
    text = file.read_text()
    digits = [place for place, letter in enumerate(text) if letter.isdigit()]
    assert len(digits) > 100
    for place in digits[:: len(digits) // 40]:
        edited = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        if json.loads(edited) == json.loads(text):
            continue
        file.write_text(edited)
        with pytest.raises(CheckpointError, match=r"checksum|is of format|SHA-256"):
            run(path, resume=True)
    file.write_text(text)
    assert run(path, resume=True).path == path


@pytest.mark.parametrize("older", [False, True], ids=["sealed again", "older version"])
@pytest.mark.parametrize(
    ("section", "value", "part"),
    [
        ("position", None, "position has the fields"),
        ("position", {}, "position has the fields"),
        ("position", STATE | {"epoch": 99}, "position.epoch=99 is out of range"),
        ("optimizer", None, "optimizer"),
        ("optimizer", [], "optimizer"),
        ("optimizer", [{}], "optimizer: a group has the settings"),
        ("scaler", 3, "scaler"),
        ("run", None, "run"),
    ],
)
def test_a_damaged_section_is_one_line(stopped, section, value, part, older):
    path, file = stopped
    card = json.loads(file.read_text())
    card["info"][section] = value
    card.pop(CHECKSUM)
    file.write_text(json.dumps(card if older else sealed(card)))
    with pytest.raises(CheckpointError, match=r"state.json: is damaged") as error:
        run(path, resume=True)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["lr", "betas", "foreach"])
def test_a_setting_of_the_optimizer_of_another_kind_is_named(stopped, name):
    path, file = stopped
    card = json.loads(file.read_text())
    card["info"]["optimizer"][0][name] = "much"
    card.pop(CHECKSUM)
    file.write_text(json.dumps(sealed(card)))
    with pytest.raises(CheckpointError, match=f"optimizer: {name} cannot be 'much'"):
        run(path, resume=True)
