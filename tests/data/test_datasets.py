"""load(): names, roots, limits; and the digits shipped with the package."""

from collections import Counter
from dataclasses import replace
from importlib.resources import files

import pytest
import torch

from spikeguard import data
from spikeguard.data import Compose, HorizontalFlip, ImageSet, RandomCrop
from spikeguard.data.by_hand import BY_HAND
from spikeguard.data.datasets import DATASETS, load
from spikeguard.rng import key


@pytest.fixture
def toy(monkeypatch):
    """A registered set of 200 training and 30 test images that records its root."""
    seen = []

    def read(root):
        seen.append(root)
        x = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1).expand(200, 1, 4, 4)
        y = torch.arange(200) // 50  # sorted by class, as a file may be
        return ImageSet(x, y, 4, "toy/train"), ImageSet(x[:30], y[:30], 4, "toy/test")

    monkeypatch.setitem(DATASETS, "toy", replace(DATASETS["mnist"], read=read))
    return seen


def positions(part):
    return part.images[:, 0, 0, 0].tolist()


def test_digits_are_the_published_ones():
    """Class counts as in the description of the UCI test file; the first image is a zero."""
    splits = load("digits")
    parts = (splits.train, splits.val, splits.test)
    labels = torch.cat([part.labels for part in parts])
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert [len(part) for part in parts] == [1167, 130, 500]
    pixels = torch.cat([part.images for part in parts])
    assert (pixels.min(), pixels.max(), pixels.dtype) == (0, 16, torch.uint8)
    x, _ = splits.train.batch(slice(None))
    assert (x.min(), x.max()) == (0.0, 1.0)


def test_digits_normalisation_is_that_of_the_training_images():
    splits = load("digits")
    x, _ = splits.train.batch(slice(None))
    assert splits.mean == (pytest.approx(float(x.mean()), abs=0.01),)
    assert splits.std == (pytest.approx(float(x.std()), abs=0.01),)


def test_digits_split_follows_its_documented_rule():
    train, test = DATASETS["digits"].read(None)
    import numpy as np

    with np.load(str(files("spikeguard.data") / "digits.npz"), allow_pickle=False) as stored:
        labels, is_test = stored["labels"].tolist(), stored["is_test"].tolist()
        images = stored["images"]
    places = []
    for digit in range(10):
        members = [(key(0, "digits", i), i) for i, y in enumerate(labels) if y == digit]
        for rank, (number, i) in enumerate(sorted(members)):
            places.append(((rank + 0.5) / len(members), number, i))
    chosen = sorted(i for *_, i in sorted(places)[:500])
    assert [i for i, flag in enumerate(is_test) if flag] == chosen
    assert test.labels.tolist() == [labels[i] for i in chosen]
    assert len(train) + len(test) == 1797
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert {48, 49, 50, 51}.issuperset(test.labels.bincount().tolist())


def test_digits_ship_with_their_attribution():
    text = (files("spikeguard.data") / "DIGITS.md").read_text(encoding="utf-8")
    assert all(word in text for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"))


@pytest.mark.parametrize("name", [name for name in BY_HAND if not DATASETS[name].sized])
def test_event_frames_are_shown_as_they_are(name):
    assert (DATASETS[name].mean, DATASETS[name].std) == ((0.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in BY_HAND])
def test_every_data_set_of_images_has_statistics_in_the_unit_interval(name):
    entry = DATASETS[name]
    assert len(entry.mean) == len(entry.std) == (3 if "cifar" in name else 1)
    assert all(0 < value < 1 for value in entry.mean + entry.std)


def test_the_root_is_the_argument_then_the_variable_then_data(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEGUARD_DATA", str(tmp_path))
    load("toy", "elsewhere"), load("toy")
    monkeypatch.delenv("SPIKEGUARD_DATA")
    load("toy")
    assert [str(root) for root in toy] == ["elsewhere", str(tmp_path), "data"]


def test_train_limit_is_stratified_nested_and_by_seed(toy):
    def chosen(limit, seed=0):
        splits = load("toy", train_limit=limit, seed=seed)
        assert positions(splits.train) == sorted(positions(splits.train))
        return sorted(positions(splits.train) + positions(splits.val))

    assert Counter(p // 50 for p in chosen(40)) == {0: 10, 1: 10, 2: 10, 3: 10}
    assert set(chosen(40)) < set(chosen(80))
    assert chosen(40) == chosen(40)
    assert chosen(40) != chosen(40, seed=1)
    assert chosen(200) == list(range(200))


def test_test_limit_is_the_first_images_for_every_seed(toy):
    for seed in (0, 1):
        assert positions(load("toy", test_limit=7, seed=seed).test) == list(range(7))


def test_validation_never_overlaps_training(toy):
    splits = load("toy", val_fraction=0.25, train_limit=100)
    assert (len(splits.train), len(splits.val)) == (75, 25)
    assert not set(positions(splits.train)) & set(positions(splits.val))


def test_without_a_validation_part_every_image_is_trained_on(toy):
    splits = load("toy", val_fraction=0)
    assert splits.val is None
    assert positions(splits.train) == list(range(200))
    with pytest.raises(ValueError, match=r"tuning needs validation images, and there are none"):
        splits.validation("tuning")
    assert len(load("toy").validation("tuning")) == 20


def test_augmentations_are_composed_in_the_given_order(toy):
    assert load("toy").augment is None
    assert load("toy", augment=()).augment is None
    assert load("toy", augment=("crop", "flip")).augment == Compose(
        (RandomCrop(4), HorizontalFlip())
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "cifar1O"},
            r"unknown data set 'cifar1O'. Did you mean 'cifar10'\? Known: digits",
        ),
        ({"augment": ("flop",)}, r"unknown augmentation 'flop'. Did you mean 'flip'\?"),
        ({"augment": ("cutout",)}, "a hole of 16 pixels erases an image of 8 x 8"),
        ({"train_limit": 0}, r"train_limit lies in 1 .. 1297, .*digits/train, got 0"),
        ({"test_limit": 501}, r"test_limit lies in 1 .. 500, .*digits/test, got 501"),
        ({"val_fraction": -0.1}, "fraction lies in"),
        ({"val_fraction": 1.0}, "fraction lies in"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        load(**{"name": "digits", **options})


def test_loading_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    load("digits", train_limit=100, augment=("crop", "flip"))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_public_name_exists():
    assert all(hasattr(data, name) for name in data.__all__)
