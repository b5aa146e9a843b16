"""A run on other test data than its own: framed as the run's are, and never mixed up."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeguard.config import load_recipe
from spikeguard.config.errors import ConfigError
from spikeguard.runs.other_data import run_on_data
from spikeguard.runs.recipe_training import train_recipe
from spikeguard.runs.run import Run
from tests.toys.event_files import arrays, events, write_nmnist

CHANGES = ["data.frames={by: count, values: binary, polarity: 1, size: 8}", "model.T=3"]
SMALL = [
    *CHANGES,
    "model.width=2",
    "model.hidden=4",
    "train.epochs=1",
    "data.val_fraction=0",
    "evaluate.limit=4",
]


def test_other_recordings_get_the_framing_of_the_run(tmp_path):
    write_nmnist(tmp_path / "data")
    recipe = load_recipe("nmnist-vanilla", [*SMALL, "data.train_limit=20"])
    train_recipe(recipe, tmp_path / "run", data_root=tmp_path / "data")
    others = [arrays(events(50, seed=k)) for k in range(4)]
    columns = (np.concatenate(parts) for parts in zip(*others, strict=True))
    joined = dict(zip("txyp", columns, strict=True))
    offsets = np.cumsum([0, *(len(t) for t, *_ in others)])
    np.savez(
        tmp_path / "night.npz", **joined, offsets=offsets, labels=[0, 1, 2, 3], sensor=[34, 34]
    )
    run = Run.load(tmp_path / "run", data_root=tmp_path / "data")
    shown = run_on_data(run, str(tmp_path / "night.npz"), out=None).data.test
    assert shown.framing == run.data.test.framing
    assert shown.batch(slice(2))[0].shape == (2, 3, 1, 8, 8)


def write_photos(folder, grey):
    """Two classes of four images each, all of one grey value."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((12, 12, 3), grey, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_photos_of_equal_names_are_other_images(tmp_path, monkeypatch):
    """Fog and snow have the same file names, labels and size; only their pixels differ."""
    monkeypatch.chdir(tmp_path)
    for part, grey in (("own/train", 10), ("own/test", 20), ("C/fog/5", 100), ("C/snow/5", 200)):
        write_photos(Path(part), grey)
    changes = ["data.name=own", "data.size=8", "model.T=1", *SMALL[2:-1], "evaluate.limit="]
    train_recipe(load_recipe("demo/vanilla", changes), Path("run"))
    run = Run.load(Path("run"))
    fog, snow = (run_on_data(run, f"C/{name}/5", out=None) for name in ("fog", "snow"))
    assert (fog.path, snow.path) == (run.path / "on/fog-5", run.path / "on/snow-5")
    cards = [json.loads((each.path / "model.json").read_text()) for each in (fog, snow)]
    assert cards[0]["images"] != cards[1]["images"]
    with pytest.raises(ConfigError, match="holds results of another model: images was"):
        run_on_data(run, "C/snow/5", out=fog.path)
    assert run_on_data(run, str(tmp_path / "C/fog/5"), out=None).path == fog.path
