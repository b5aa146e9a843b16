"""The log of a training: every epoch once, also after an interruption."""

import csv
import io
import json

import pytest
import torch
from lightning_fabric.loggers import CSVLogger
from torch import nn

from spikeguard.cli.entry import main
from spikeguard.data import ImageSet, Splits
from spikeguard.rng import stream
from spikeguard.training import engine
from spikeguard.training.engine import Engine, require_log
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import train

pytestmark = pytest.mark.slow

QUICK = TrainOptions(epochs=2, batch_size=4, lr=0.05)


def linear():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream(0, "w")))
    return model


def small_data():
    def images(count, name):
        x = torch.rand(count, 1, 4, 4, generator=stream(0, name))
        return ImageSet(x, torch.arange(count) % 3, 3, name, peak=1.0)

    parts = (images(10, "train"), images(6, "val"), images(3, "test"))
    return Splits(*parts, mean=(0.0,), std=(1.0,))


class Stop(Exception):
    pass


@pytest.fixture
def logged(monkeypatch):
    """Fabric's logger to CSV files in place of the one to TensorBoard: the same interface."""
    monkeypatch.setattr(engine, "find_spec", lambda name: object())

    def to_csv(run):
        folder = run / engine.TENSORBOARD
        for earlier in folder.glob("metrics.csv"):
            earlier.rename(folder / "events.out.tfevents.1")
        return CSVLogger(root_dir=run, name=engine.TENSORBOARD, version="")

    monkeypatch.setattr(engine, "_tensorboard", to_csv)

    def read(run):
        text = (run / engine.TENSORBOARD / "metrics.csv").read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text)))

    return read


def test_the_numbers_of_every_epoch_are_logged(tmp_path, logged):
    result = train(linear(), small_data(), options=QUICK, out=tmp_path / "run", log="tensorboard")
    lines = logged(result.path)
    assert [line["step"] for line in lines] == ["1", "2"]
    for line, epoch in zip(lines, result.history, strict=True):
        for name in ("train_loss", "val_loss", "val_accuracy", "lr"):
            assert float(line[name]) == pytest.approx(epoch[name])
        term = epoch["terms"]["cross_entropy"]
        assert float(line["terms/cross_entropy"]) == pytest.approx(term)


def test_a_resumed_run_logs_every_epoch_once(tmp_path, logged):
    def stop(done, total, text):
        if done > total // 2:
            raise Stop

    options = {"options": QUICK, "out": tmp_path / "run", "log": "tensorboard"}
    with pytest.raises(Stop):
        train(linear(), small_data(), progress=stop, **options)
    assert [line["step"] for line in logged(tmp_path / "run")] == ["1"]
    result = train(linear(), small_data(), resume=True, **options)
    assert [line["step"] for line in logged(tmp_path / "run")] == ["1", "2"]
    assert not list((tmp_path / "run" / engine.TENSORBOARD).glob("events*"))
    plain = train(linear(), small_data(), options=QUICK, out=tmp_path / "plain")
    drop = {"seconds"}
    for one, two in zip(result.history, plain.history, strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {
            k: v for k, v in two.items() if k not in drop
        }


def test_without_the_package_one_line_and_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    words = ["train", "demo/vanilla", "--log", "tensorboard", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    expected = "spikeguard train: log: tensorboard is not installed; run: pip install tensorboard\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="'tensorboard' or None, got 'wandb'"):
        require_log("wandb")


def test_without_the_option_nothing_is_logged(tmp_path):
    train(linear(), small_data(), options=QUICK, out=tmp_path / "run")
    assert not (tmp_path / "run" / engine.TENSORBOARD).exists()
    Engine().log(json.loads('{"epoch": 1}'))


def test_tensorboard_reads_the_events(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = train(linear(), small_data(), options=QUICK, out=tmp_path / "run", log="tensorboard")
    events = reader.EventAccumulator(str(result.path / engine.TENSORBOARD))
    events.Reload()
    found = [point.value for point in events.Scalars("val_loss")]
    assert found == pytest.approx([epoch["val_loss"] for epoch in result.history], rel=1e-6)
