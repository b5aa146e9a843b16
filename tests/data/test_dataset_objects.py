"""from_dataset(): torch Datasets and DataLoaders, rows and columns of Hugging Face."""

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from spikeguard.data import from_arrays, from_dataset

X = torch.arange(10 * 3 * 4 * 5, dtype=torch.uint8).view(10, 3, 4, 5)
Y = torch.arange(10) % 3
PLAIN = from_arrays(X, Y)


class Pairs(Dataset):
    """(image, label) with an int label, and class names as torchvision has them."""

    classes = ["ant", "bee", "cat"]

    def __len__(self):
        return len(X)

    def __getitem__(self, place):
        return self.image(place), int(Y[place])

    def image(self, place):
        return X[place]


class Rows:
    """A data set of Hugging Face: rows are mappings, and features know the class names."""

    class _Label:
        names = ["ant", "bee", "cat"]

    features = {"img": object(), "label": _Label()}

    def __len__(self):
        return len(X)

    def __getitem__(self, place):
        return {"img": X[place].permute(1, 2, 0).numpy(), "label": int(Y[place])}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "made",
    [
        TensorDataset(X, Y),
        Pairs(),
        Rows(),
        Stream(),
        DataLoader(TensorDataset(X, Y), batch_size=4),
        DataLoader(Pairs(), batch_size=4),
        DataLoader(Rows(), batch_size=4),
        DataLoader(Stream(), batch_size=3),
        {"image": list(X), "label": Y.tolist()},
        {"x": X, "y": Y},
        {"images": X.numpy(), "labels": Y.numpy().astype("int32"), "other": 1},
        {"pixel_values": [x.permute(1, 2, 0).numpy() for x in X], "targets": Y},
    ],
    ids=lambda made: type(made).__name__,
)
def test_every_kind_of_object_gives_the_same_images(made):
    assert from_dataset(made).digest == PLAIN.digest


def test_class_names_are_those_of_the_object():
    names = ("ant", "bee", "cat")
    assert from_dataset(Pairs()).classes == from_dataset(Rows()).classes == names
    assert from_dataset(DataLoader(Pairs())).classes == names
    assert from_dataset({"x": X, "y": Y, "classes": list(names)}).classes == names
    assert from_dataset(Pairs(), classes=["a", "b", "c"]).classes == ("a", "b", "c")
    assert from_dataset(TensorDataset(X, Y)).classes == ()


def test_pillow_images_are_read():
    image = pytest.importorskip("PIL.Image")
    shown = [image.fromarray(x.permute(1, 2, 0).numpy()) for x in X]
    assert from_dataset({"image": shown, "label": Y}).digest == PLAIN.digest


class Batches:
    """A batch sampler of one's own: all images at once, in an order that a function gives."""

    def __init__(self, order):
        self.order = order

    def __iter__(self):
        yield list(self.order(len(ALL)))


class Jitter(Pairs):
    """A random transform, as in training."""

    def image(self, place):
        return X[place].flip(2) if np.random.default_rng().random() < 0.5 else X[place]


class Sizes(Pairs):
    def image(self, place):
        return X[place, :, : 3 if place == 7 else 4]


class Normalised(Pairs):
    def image(self, place):
        return X[place] / 255 * 4 - 2


class Triples(Pairs):
    def __getitem__(self, place):
        return X[place], 0, 1


ALL = TensorDataset(X, Y)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Jitter(), "returns another image when it is read again; leave random transforms out"),
        (DataLoader(Jitter(), batch_size=2), "another image when it is read again"),
        (Sizes(), r"image 7 is torch.uint8 \[3, 3, 5\], image 0 torch.uint8 \[3, 4, 5\]"),
        (Normalised(), r"undo the normalisation"),
        (Triples(), r"a sample is \(image, label\), got tuple of 3"),
        (
            DataLoader(ALL, shuffle=True),
            "order of a RandomSampler, .* pass a DataLoader with shuffle",
        ),
        (DataLoader(ALL, sampler=SubsetRandomSampler([1, 2])), "order of a SubsetRandomSampler"),
        (DataLoader(ALL, batch_sampler=Batches(lambda n: range(n)[::-1])), "its Batches does not"),
        (DataLoader(ALL, batch_sampler=Batches(lambda n: range(n - 1))), "its Batches does not"),
        (DataLoader(ALL, batch_size=4, drop_last=True), "pass drop_last=False"),
        (Subset(ALL, []), "has no images"),
        ({"x": X}, "'x' needs labels 'y' beside it"),
        ({"y": Y}, "'y' needs images 'x' beside it"),
        ({"a": X, "b": Y}, "holds 'a', 'b'; name the images x and the labels y"),
        ({"x": X, "image": X, "y": Y}, "'x' and 'image' both name the images; keep one"),
        ({"x_train": X, "y_train": Y}, "has parts; pass one of them"),
        (7, "is no data set; pass a pair"),
        (object(), "is no data set"),
    ],
    ids=lambda made: made[:20] if isinstance(made, str) else type(made).__name__,
)
def test_refusals_are_one_line(made, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_dataset(made)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.array([[0, 1000], [2000, 3000]], dtype=np.uint16), "more than 8 bits"),
        (np.array([[0.0, 0.5], [0.7, 1.0]], dtype=np.float32), "more than 8 bits"),
        (np.zeros((2, 2, 4), dtype=np.uint8), "transparent pixels"),
    ],
)
def test_images_of_pillow_that_would_lose_something_are_rejected(image, message):
    pillow = pytest.importorskip("PIL.Image")
    with pytest.raises(ValueError, match=message):
        from_dataset({"image": [pillow.fromarray(image)], "label": [0]})
