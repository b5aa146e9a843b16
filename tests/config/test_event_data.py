"""Event data in recipes: encoder, number of frames, framing, and short names of recipes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spikeguard.config.builder import build, load_data
from spikeguard.config.errors import ConfigError
from spikeguard.config.event_data import in_steps
from spikeguard.config.schema import load_recipe
from spikeguard.config.yaml_files import read
from spikeguard.data import Framing, Recording, Splits, from_recordings
from spikeguard.encoders.event_frames import EventFrames
from spikeguard.encoders.input_space import InputSpace, space_of
from tests.toys.event_files import write_nmnist
from tests.toys.event_frames import T, dots

SMALL = """
data: {{name: {file}, val_fraction: 0.25}}
model: {{name: cnn, T: 4, width: 2, hidden: 4}}
train: {{epochs: 1, batch_size: 8}}
"""


@pytest.fixture
def recipe(tmp_path):
    """Return a function that loads a recipe of made frames with changes."""

    def load(*changes, high=1):
        data, file = dots(24), tmp_path / f"events{high}.npz"
        np.savez(file, x=(data.images * high).numpy(), y=data.labels.numpy())
        path = tmp_path / "small.yaml"
        path.write_text(SMALL.format(file=file), encoding="utf-8")
        return load_recipe(path, changes)

    return load


def line(action):
    with pytest.raises(ConfigError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_event_data_get_the_encoder_and_its_space(recipe):
    """Binary frames of 0 and 1; counts have no upper end."""
    built = build(recipe())
    assert isinstance(built.model.encoder, EventFrames)
    assert space_of(built.model) == built.data.test.space == InputSpace(whole=True, temporal=True)
    assert built.model.in_shape == (T, 2, 8, 8)
    counts = build(recipe(high=3)).model
    assert space_of(counts) == InputSpace(float("inf"), whole=True, temporal=True)
    named = build(recipe("model.encoder=event_frames")).model
    assert space_of(named) == space_of(built.model)


def test_the_recipe_does_not_store_what_follows_from_the_data(recipe):
    loaded = recipe()
    build(loaded)
    assert "encoder" not in loaded.model and "frames" not in loaded.training_part()["data"]


@pytest.mark.parametrize("encoder", ["direct", "poisson", "phase"])
def test_an_encoder_for_images_is_refused_for_events(recipe, encoder):
    said = line(lambda: build(recipe(f"model.encoder={encoder}")))
    assert "model.encoder in recipe small: events1.npz" in said
    assert "the network takes images in [0, 1], the data are frames" in said


def test_event_frames_are_refused_for_images():
    said = line(lambda: build(load_recipe("demo/vanilla", ["model.encoder=event_frames"])))
    assert (
        "model.encoder in recipe demo/vanilla: digits" in said and "leave the encoder out" in said
    )


def test_another_number_of_frames_is_refused(recipe):
    said = line(lambda: build(recipe("model.T=5")))
    assert "model.T in recipe small" in said and "have 4 frames, got 5; write 4" in said


def test_counts_above_a_stated_largest_value_are_refused(recipe):
    changes = ("model.encoder.name=event_frames", "model.encoder.high=2")
    assert "the data lie in [0, inf)" in line(lambda: build(recipe(*changes, high=3)))


def test_training_takes_a_step_with_every_augmentation(recipe):
    from spikeguard.training.engine import Engine
    from spikeguard.training.learner import Learner
    from spikeguard.training.state import TrainState

    augment = "data.augment=[crop, flip, event_drop, time_jitter]"
    objective = "objective=[{name: at, eps: 0.1, steps: 1}, {name: tgo, lambda_max: 1.0}]"
    built = build(recipe(augment, objective, "data.val_fraction=0.25"))
    learner = Learner.create(built.model, built.data, built.objective, built.options, Engine())
    before = [p.detach().clone() for p in built.model.parameters()]
    learner.step(torch.arange(8), TrainState(), progress=0.5)
    after = list(built.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(p.isfinite().all() for p in after)


# ------------------------------------------------------------------------ recordings


def test_recordings_are_framed_in_the_steps_of_the_network(recipe):
    events = Recording([0, 5, 9], x=[3, 3, 0], y=[1, 1, 0], p=[1, 1, 0], sensor=(8, 8))
    made = from_recordings([events] * 4, [0, 1, 2, 3])
    data = Splits(made, None, made, (0.0, 0.0), (1.0, 1.0))
    again = in_steps(recipe("model.T=6"), data)
    assert (again.train.framing.T, again.val, again.test.framing.T) == (6, None, 6)
    assert in_steps(recipe("model.T=6"), again) is again
    built = build(recipe("model.T=6"), data=data)
    assert built.model.T == 6 and built.model.in_shape == (6, 2, 8, 8)
    assert in_steps(recipe(), replace(again)).test.framing.T == 4
    said = line(lambda: in_steps(recipe("model.T="), data))
    assert "model.T in recipe small" in said and "write model.T" in said


def test_the_recipes_of_nmnist_read_framed_recordings(tmp_path):
    """The official layout on disk, in frames of the stated size and of the T of the network."""
    write_nmnist(tmp_path)
    small = ["data.train_limit=", "model.width=2", "model.hidden=4", "evaluate.limit="]
    for name, size, steps in (("nmnist-vanilla", 17, 10), ("nmnist-at-tgo", 12, 3)):
        changes = [*small, f"data.frames.size={size}", f"model.T={steps}", "data.val_fraction=0.5"]
        built = build(load_recipe(name, changes), tmp_path)
        assert built.data.train.framing.T == built.model.T == steps
        assert built.model.in_shape == (steps, 2, size, size)
        x = built.data.train.batch(slice(2))[0]
        assert built.model(x).shape == (2, 10) and x.shape == (2, *built.model.in_shape)
    default = load_recipe("nmnist-vanilla", [*small, "data.frames=", "model.T=5"])
    assert load_data(default, tmp_path).test.framing == Framing(T=5)
    said = line(lambda: build(load_recipe("nmnist-vanilla", ["data.frames.buy=time"]), tmp_path))
    assert "data.frames in recipe events/nmnist-vanilla" in said and "Did you mean 'by'?" in said
    said = line(lambda: build(load_recipe("nmnist-vanilla", ["data.frames.T=3"]), tmp_path))
    assert "data.frames.T" in said and "leave it out" in said
    said = line(lambda: build(load_recipe("demo/vanilla", ["data.frames.by=time"])))
    assert "holds images, and frames is for event" in said and "leave it out" in said


# ----------------------------------------------------------------------- short names


def test_a_name_may_leave_out_the_folder_where_one_recipe_ends_with_it():
    assert load_recipe("nmnist-tgo") == load_recipe("events/nmnist-tgo")
    assert load_recipe("nmnist-tgo").name == "events/nmnist-tgo"
    said = line(lambda: load_recipe("cifar10-at"))
    assert "several end with that name" in said and "mini/cifar10-at" in said
    assert "medium/cifar10-at" in said
    assert "unknown recipe 'mnist-tg'" in line(lambda: read("mnist-tg"))
    assert "unknown recipe '_at'" in line(lambda: read("_at"))


def test_the_recipes_of_nmnist_differ_in_the_defence_alone():
    plain = load_recipe("nmnist-vanilla")
    assert plain.data.frames == {"by": "time", "values": "binary", "polarity": 2, "size": 17}
    pieces = {"vanilla": [], "nlif": [], "mc": ["tgo"], "tgo": ["tgo"], "at": ["at"]}
    pieces["at-tgo"] = ["at", "tgo"]
    for name, wanted in pieces.items():
        recipe = load_recipe(f"nmnist-{name}")
        assert [each["name"] for each in recipe.objective] == wanted
        noisy = name in ("nlif", "tgo", "at-tgo")
        assert (recipe.model["neuron"]["name"] == "noisy_lif") == noisy
        assert (recipe.data, recipe.train, recipe.seed) == (plain.data, plain.train, plain.seed)
