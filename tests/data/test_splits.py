"""make_splits(): parts, statistics and augmentation of one's own data."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from spikeguard.data import Compose, RandomCrop, from_arrays, make_splits
from spikeguard.data.splits import statistics


def images(count=100, classes=2, name="mine"):
    """Grey images whose pixels all hold the position of the image; classes take turns."""
    x = np.arange(count, dtype="uint8")[:, None, None].repeat(4, 1).repeat(4, 2)
    return from_arrays(x, np.arange(count) % classes, name=name)


def positions(part):
    return part.images[:, 0, 0, 0].tolist()


def test_one_set_is_split_into_three_disjoint_parts_with_its_proportions():
    data = make_splits(images(100), test_fraction=0.2, val_fraction=0.25)
    parts = (data.train, data.val, data.test)
    assert [len(part) for part in parts] == [60, 20, 20]
    assert sorted(p for part in parts for p in positions(part)) == list(range(100))
    for part in parts:
        assert Counter(part.labels.tolist()) == {0: len(part) // 2, 1: len(part) // 2}


def test_the_test_images_are_the_same_for_every_seed():
    first, second = make_splits(images(), seed=0), make_splits(images(), seed=1)
    assert positions(first.test) == positions(second.test)
    assert positions(first.val) != positions(second.val)
    assert positions(first.val) == positions(make_splits(images(), seed=0).val)


def test_given_parts_are_kept():
    train, val, test = images(50), images(10), images(20)
    data = make_splits(train, test, val)
    assert (data.train, data.val, data.test) == (train, val, test)
    without = make_splits(train, test)
    assert (len(without.train), len(without.val)) == (45, 5)
    assert without.test is test


def test_without_a_share_for_validation_every_image_is_trained_on():
    data = make_splits(images(50), images(20), val_fraction=0)
    assert len(data.train) == 50 and data.val is None


def test_statistics_are_those_of_the_training_images():
    x = torch.rand(3000, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1] *= 0.5
    train = from_arrays(x, torch.arange(3000) % 2)
    mean, std = statistics(train)
    assert mean == pytest.approx(x.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), abs=1e-4)
    data = make_splits(train, replace(train, images=train.images * 0))
    assert data.mean == pytest.approx(mean, abs=0.01)


def test_a_constant_channel_is_not_divided_by_zero():
    assert statistics(from_arrays(np.zeros((4, 1, 2, 2)), [0, 1, 0, 1])) == ((0.0,), (0.01,))


def test_augmentations_by_name_or_as_an_object():
    crop = RandomCrop(2)
    assert make_splits(images(), augment=["crop"]).augment == Compose((RandomCrop(4),))
    assert make_splits(images(), augment=crop).augment is crop
    assert make_splits(images()).augment is make_splits(images(), augment=[]).augment is None


GAP = from_arrays(np.zeros((4, 1, 2, 2)), [1, 2, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((GAP, GAP), {}, r"no training image of class 0; .* np.unique\(y, return_inverse=True\)"),
        ((images(), images(20, classes=4)), {}, "in 2 classes, but mine has"),
        ((images(),), {"test_fraction": 1.0}, "leaves the training or the test images empty"),
        ((images(),), {"test_fraction": 0.001}, "leaves the training or the test images empty"),
        ((images(),), {"val_fraction": 0.001}, "leaves a part empty"),
        ((images(),), {"augment": ["flop"]}, r"unknown augmentation 'flop'. Did you mean 'flip'"),
    ],
)
def test_parts_that_do_not_fit_are_rejected(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        make_splits(*arguments, **options)
