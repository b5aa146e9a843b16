"""ImageSet, Splits and the validation split."""

from collections import Counter

import pytest
import torch

from spikeguard.data import ImageSet, Splits, as_image_set, load, split_validation
from spikeguard.data.stratified import stratified_order
from spikeguard.rng import stream


def images(labels, peak=255.0, shape=(1, 2, 2)):
    """Images whose pixels all hold the position of the image."""
    labels = torch.as_tensor(labels)
    count = len(labels)
    x = (torch.arange(count) % 256).to(torch.uint8).view(-1, 1, 1, 1).expand(count, *shape)
    return ImageSet(x, labels, int(labels.max()) + 1, "toy", peak=peak)


def test_batch_is_float_in_the_unit_interval():
    data = ImageSet(
        torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.arange(3), 3, "toy"
    )
    x, y = data.batch(torch.tensor([2, 1, 1]))
    assert x.dtype == torch.float32
    assert x.flatten().tolist() == pytest.approx([1.0, 0.2, 0.2], abs=1e-7)
    assert y.tolist() == [2, 1, 1]
    assert (len(data), data.shape) == (3, (1, 1, 1))


def test_peak_means_one():
    data = ImageSet(
        torch.full((1, 1, 2, 2), 16, dtype=torch.uint8), torch.zeros(1).long(), 1, "t", 16
    )
    assert data.batch([0])[0].unique().tolist() == [1.0]


@pytest.mark.parametrize("index", [slice(1, 3), [1, 2], range(1, 3), torch.tensor([1, 2])])
def test_every_kind_of_index(index):
    data = images([0, 1, 2, 3])
    assert data.batch(index)[1].tolist() == [1, 2]
    assert data.subset(index).labels.tolist() == [1, 2]
    assert data.subset(index).images[:, 0, 0, 0].tolist() == [1, 2]


@pytest.mark.parametrize("index", [1, torch.tensor(1), torch.zeros(2, 2).long()])
def test_an_index_that_loses_the_sample_axis_is_rejected(index):
    with pytest.raises(ValueError, match="a slice or a list of positions"):
        images([0, 1]).batch(index)


@pytest.mark.parametrize("index", [slice(0, 2), [0, 1]])
def test_writing_into_a_batch_does_not_reach_the_data(index):
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2).long()
    data = as_image_set((x, y), num_classes=2)
    a, b = data.batch(index)
    a.zero_(), b.fill_(1)
    assert data.images.unique().tolist() == [0.5]
    assert data.labels.tolist() == [0, 0]


GOOD = {
    "images": torch.full((2, 1, 2, 2), 0.5),
    "labels": torch.tensor([0, 1]),
    "num_classes": 2,
    "name": "toy",
    "peak": 1.0,
}
NAN = torch.tensor([0.0, float("nan")]).view(2, 1, 1, 1)
INF = torch.tensor([0.0, float("inf")]).view(2, 1, 1, 1)
FAULTS = [
    ({"images": torch.zeros(2, 2, 2)}, r"images are \[N, C, H, W\]"),
    ({"images": torch.zeros(0, 1, 2, 2), "labels": torch.zeros(0).long()}, "not empty"),
    ({"images": torch.zeros(2, 1, 2, 2).long()}, "uint8 or float"),
    ({"images": NAN}, "NaN"),
    ({"images": INF}, r"pixels lie in \[0, peak=1\], got 0 .. inf"),
    ({"images": -GOOD["images"]}, r"got -0.5 .. -0.5"),
    ({"images": GOOD["images"] * 255}, "rescale them or set peak"),
    ({"images": torch.full((2, 1, 2, 2), 17, dtype=torch.uint8), "peak": 16.0}, "peak=16"),
    ({"peak": 0.0}, "peak is the stored value of white"),
    ({"labels": torch.tensor([0, 1, 1])}, "2 images but 3 labels"),
    ({"labels": torch.tensor([0, 2])}, r"labels lie in 0 .. 1 .*got 0 .. 2"),
    ({"labels": torch.tensor([-1, 0])}, "got -1 .. 0"),
    ({"labels": torch.tensor([0.0, 1.0])}, r"write y.long\(\)"),
    ({"labels": torch.tensor([[0, 1], [1, 0]])}, r"of one-hot labels write y.argmax\(1\)"),
    ({"labels": torch.tensor([[[0]], [[1]]])}, "class numbers"),
    ({"classes": ("only",)}, "2 classes but 1 class names"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_construction_rejects_with_one_line(change, message):
    ImageSet(**GOOD)
    with pytest.raises(ValueError, match=message) as caught:
        ImageSet(**{**GOOD, **change})
    assert str(caught.value).startswith("ImageSet 'toy': ")
    assert "\n" not in str(caught.value)


def test_a_pair_becomes_an_image_set():
    x, y = (
        torch.rand(3, 1, 2, 2, generator=stream(0, "x")),
        torch.tensor([0, 4, 2], dtype=torch.int32),
    )
    data = as_image_set((x.requires_grad_(), y))
    assert (data.num_classes, data.labels.dtype, data.peak) == (5, torch.int64, 1.0)
    assert torch.equal(data.batch(slice(None))[0], x.detach())
    assert not data.images.requires_grad
    assert as_image_set((x, y), num_classes=10).num_classes == 10
    assert as_image_set(data) is data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("digits", "an ImageSet or a pair .* sg.data.from_arrays"),
        (load("digits"), "got Splits; pass one part, such as data.test"),
        ((torch.zeros(1, 1, 2, 2),), "an ImageSet or a pair"),
        ((GOOD["images"].tolist(), GOOD["labels"]), "an ImageSet or a pair"),
        ((GOOD["images"].ceil().byte(), GOOD["labels"]), r"if 1 is white, write x.astype"),
        ((GOOD["images"].long(), GOOD["labels"]), "uint8 or float"),
        ((GOOD["images"] * 510, GOOD["labels"]), "float pixels up to 255: divide by 255"),
        ((GOOD["images"], GOOD["labels"].float()), r"write y.long\(\)"),
        ((GOOD["images"], -GOOD["labels"]), "labels lie in"),
        ((GOOD["images"] * 2 - 1.5, GOOD["labels"]), "Normalisation belongs in the model"),
        ((torch.zeros(0, 1, 2, 2), torch.zeros(0).long()), "not empty"),
    ],
)
def test_a_pair_that_does_not_fit_is_rejected(data, message):
    with pytest.raises(ValueError, match=message):
        as_image_set(data)


def test_validation_keeps_the_class_proportions_and_the_order():
    """16 of 160 images: exactly a tenth of each class of 100, 50 and 10."""
    data = images([0] * 100 + [1] * 50 + [2] * 10)
    train, val = split_validation(data, 0.1, seed=3)
    assert Counter(val.labels.tolist()) == {0: 10, 1: 5, 2: 1}
    assert Counter(train.labels.tolist()) == {0: 90, 1: 45, 2: 9}
    positions = [part.images[:, 0, 0, 0].tolist() for part in (train, val)]
    assert all(part == sorted(part) for part in positions)
    assert sorted([*positions[0], *positions[1]]) == list(range(160))
    assert (train.name, val.name) == ("toy/train", "toy/val")


def test_validation_depends_on_the_seed_alone():
    data = images([0, 1, 2] * 40)
    state = torch.get_rng_state()
    first, again, other = (split_validation(data, 0.2, seed)[1].images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan"), 0.01, 0.99])
def test_validation_rejects_an_empty_part(fraction):
    with pytest.raises(ValueError, match="split_validation"):
        split_validation(images([0, 1] * 5), fraction, 0)


def test_every_prefix_of_a_stratified_order_is_balanced():
    labels = torch.arange(70) % 7
    order = stratified_order(labels, stream(0, "test"))
    assert sorted(order.tolist()) == list(range(70))
    for k in range(1, 71):
        counts = labels[order[:k]].bincount(minlength=7)
        assert counts.max() - counts.min() <= 1


def test_a_stratified_order_prefers_no_class_among_equals():
    """The first position goes to each of 7 classes; 200 seeds miss one with chance 7 (6/7)^200."""
    labels = torch.arange(70) // 10  # sorted by class, as a file may be
    first = {int(labels[stratified_order(labels, stream(s, "test"))[0]]) for s in range(200)}
    assert first == set(range(7))


def splits(**changes):
    part = images([0, 1, 2, 3])
    return Splits(
        **{"train": part, "val": part, "test": part, "mean": (0.5,), "std": (0.5,), **changes}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": images([0, 1, 2])}, "but toy has"),
        ({"val": images([0, 1, 2, 3], shape=(3, 2, 2))}, "but toy has"),
        ({"mean": (0.5, 0.5)}, "one number a channel"),
        ({"std": (0.0,)}, "std > 0"),
        ({"std": ()}, "one number a channel"),
    ],
)
def test_splits_must_fit_together(changes, message):
    splits()
    with pytest.raises(ValueError, match=message):
        splits(**changes)


def test_splits_try_the_augmentation_at_once():
    def too_big(x, generator):
        raise ValueError("Cutout: a hole")

    with pytest.raises(ValueError, match="a hole"):
        splits(augment=too_big)
