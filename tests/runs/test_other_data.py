"""A run on other recordings than its own: they are framed as the run's are."""

import numpy as np

from spikeguard.config import load_recipe
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
