"""Every block of Python on every page runs, on digits and with short training."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.cli import main
from spikeguard.training.trainer import train
from tests.toys.event_frames import dots, trained
from tests.toys.photos import write_photo

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
    if "```python" in page.read_text(encoding="utf-8")
    and page.name != "your-data.md"  # also has commands and files: tests/test_your_data.py
]
EVENT_ATTACKS = (
    "events",
    "raw-events",
    "retiming",
    "sda",
    "spike-compatible",
    "spikefool",
    "greedy",
)
pytestmark = pytest.mark.slow


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


class Spikes(nn.Module):
    """A network of plain torch that repeats its input for four steps, as a user may bring."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)
        self.neuron = sg.neurons.LIF(decay=0.5)

    def forward(self, x):
        current = self.layer(x.flatten(1))
        return self.neuron(current.expand(4, *current.shape)).mean(0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    data = sg.data.load("digits")
    cut = {"train": 64, "val": 16, "test": 6}
    few = replace(data, **{k: getattr(data, k).subset(slice(n)) for k, n in cut.items()})
    model = sg.models.CNN(T=4, width=4, image_size=8, mean=data.mean, std=data.std)
    folder = tmp_path_factory.mktemp("run")
    train(model, few, options=sg.TrainOptions(epochs=2, lr=0.02), out=folder / "digits")
    return few, model.eval()


@pytest.fixture
def short(monkeypatch, tmp_path, digits):
    """Let the names that pages use exist, and let what takes minutes take a moment."""
    few, model = digits
    monkeypatch.chdir(tmp_path)
    suite = sg.attacks.suite

    def short_train(model, data, objective=None, options=None, **more):
        return train(
            model, data, objective, replace(options or sg.TrainOptions(), epochs=1), **more
        )

    def short_suite(name, **options):
        attacks = suite(name, **options)
        return {k: replace(a, budget=300) if k == "snn" else a for k, a in attacks.items()}

    monkeypatch.setattr(sg, "train", short_train)
    monkeypatch.setattr(sg, "audit", partial(sg.audit, budget="quick"))
    monkeypatch.setattr(sg.attacks, "suite", short_suite)
    load = sg.data.load
    monkeypatch.setattr(
        sg.data, "load", lambda name, **more: load(name, **more) if Path(name).exists() else few
    )
    monkeypatch.setattr(sg.data, "download", lambda name, url=None: None)
    x, y = few.test.batch(slice(None))
    names = {"sg": sg, "data": few, "model": model, "x": x, "y": y, "net": Spikes()}
    return names | {"validation": few.val, "g": sg.stream(0, "attack")}


def own(page: Path, names: dict) -> dict:
    """Return what a page needs beyond the names of the others."""
    if page.name == "mean-field.md":  # a network that draws noise
        noisy = sg.models.CNN(T=4, width=4, image_size=8, neuron=sg.neurons.NoisyLIF(decay=0.5))
        return {"model": noisy}
    if page.parent.name == "attacks" and page.stem in EVENT_ATTACKS:
        x, y = dots(4).batch(slice(4))
        return {"model": trained(), "x": x, "y": y}
    if page.name == "data.md":
        for place, name in enumerate(("cat", "dog")):
            write_photo(Path("photos") / name / "001.jpeg", place)
    if page.name == "models.md":
        return {"x": torch.rand(1, 3, 32, 32)}
    if page.name == "report.md":
        for run in ("demo/vanilla", "demo/tgo"):
            main(["train", run, "train.epochs=1", "data.train_limit=64"])
    return {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run_in_order(page, short, capsys):
    short.update(own(page, short))
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), short)
