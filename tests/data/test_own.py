"""Data of one's own from files and objects: which images are attacked, and which trained on."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from spikeguard.data import ImageSet, from_arrays, load
from spikeguard.data.own import own_data, read_own

X = np.arange(40, dtype="uint8")[:, None, None].repeat(4, 1).repeat(4, 2)
Y = np.arange(40) % 2


def positions(part):
    return sorted(part.images[:, 0, 0, 0].tolist())


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_an_npz_file_without_parts_is_all_to_attack_and_split_to_train(tmp_path):
    path = save(tmp_path / "my.npz", x=X, y=Y)
    own = read_own(path)
    assert positions(own.for_evaluation("my.npz").test) == list(range(40))
    data = load(path)
    assert [len(part) for part in (data.train, data.val, data.test)] == [29, 3, 8]
    assert own.for_evaluation("").test.digest == from_arrays(X, Y).digest


@pytest.mark.parametrize(
    "names",
    [
        {"x": slice(30, 40), "x_train": slice(0, 30)},
        {"x_test": slice(30, 40), "x_train": slice(0, 30)},
        {"test_images": slice(30, 40), "train_images": slice(0, 30)},
    ],
)
def test_parts_of_a_file_are_kept(tmp_path, names):
    arrays = {name: X[part] for name, part in names.items()}
    arrays |= {n.replace("x", "y").replace("images", "labels"): Y[p] for n, p in names.items()}
    path = save(tmp_path / "my.npz", **arrays)
    assert positions(read_own(path).for_evaluation("").test) == list(range(30, 40))
    data = load(path, val_fraction=0.2)
    assert positions(data.test) == list(range(30, 40))
    assert (len(data.train), len(data.val)) == (24, 6)


def test_parts_have_the_classes_of_the_largest(tmp_path):
    path = save(tmp_path / "my.npz", x=X[:4], y=[0, 0, 1, 0], x_train=X, y_train=np.arange(40) % 5)
    data = load(path)
    assert data.test.num_classes == data.train.num_classes == 5


def test_validation_images_are_those_of_the_file(tmp_path):
    path = save(
        tmp_path / "my.npz",
        x_train=X[:20],
        y_train=Y[:20],
        x_val=X[20:26],
        y_val=Y[20:26],
        x_test=X[30:],
        y_test=Y[30:],
    )
    assert positions(load(path).val) == list(range(20, 26))
    images = read_own(path).for_evaluation("my.npz")
    assert positions(images.validation("--tune")) == list(range(20, 26))


def test_missing_parts_are_named(tmp_path):
    train = read_own(save(tmp_path / "a.npz", x_train=X, y_train=Y))
    with pytest.raises(ValueError, match=r"a.npz: has no test images; add x_test and y_test"):
        train.for_evaluation("a.npz")
    test = read_own(save(tmp_path / "b.npz", x_test=X, y_test=Y))
    with pytest.raises(ValueError, match=r"b.npz: has no training images; add x_train"):
        test.for_training("b.npz")
    with pytest.raises(
        ValueError, match=r"--tune needs validation images, and b.npz/test has none"
    ):
        test.for_evaluation("b.npz").validation("--tune")


def test_images_sorted_by_class_are_mixed_and_others_keep_their_order(tmp_path):
    mixed = read_own(save(tmp_path / "a.npz", x=X, y=np.arange(40) // 20)).for_evaluation("a").test
    assert mixed.labels[:10].bincount().tolist() == [5, 5]
    assert positions(mixed) == list(range(40))
    kept = read_own(save(tmp_path / "b.npz", x=X, y=Y)).for_evaluation("b").test
    assert kept.images[:, 0, 0, 0].tolist() == list(range(40))


def test_a_pair_of_npy_files(tmp_path):
    np.save(tmp_path / "fog.npy", X[..., None].repeat(3, 3))
    np.save(tmp_path / "labels.npy", Y)
    found = read_own(tmp_path / "fog.npy").for_evaluation("fog").test
    assert (found.shape, len(found), found.name) == ((3, 4, 4), 40, "fog.npy")


def test_limits_and_augmentations_apply_to_own_data(tmp_path):
    path = save(tmp_path / "my.npz", x=X, y=Y)
    data = load(path, train_limit=20, test_limit=3, val_fraction=0.5, augment=["flip"])
    assert [len(part) for part in (data.train, data.val, data.test)] == [10, 10, 3]
    assert data.augment is not None
    with pytest.raises(
        ValueError, match=r"train_limit lies in 1 .. 32, the images of my.npz, got 33"
    ):
        load(path, train_limit=33)


def test_a_relative_path_is_looked_for_here_and_then_in_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets").mkdir()
    save(tmp_path / "sets" / "my.npz", x=X, y=Y)
    assert len(load("my.npz", "sets").test) == 8
    save(tmp_path / "my.npz", x=X[:20], y=Y[:20])
    assert len(load("my.npz", "sets").test) == 4


def test_a_registered_name_comes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert len(load("digits").test) == 500
    with pytest.raises(ValueError, match="no images by class"):
        load("./digits")


@pytest.mark.parametrize(
    ("plant", "name", "message"),
    [
        (
            lambda p: None,
            "no.npz",
            "load: no.npz: no such file or folder, in the current folder or in",
        ),
        (lambda p: None, "photo", "unknown data set 'photo'. Known: digits, .*or the path of"),
        (lambda p: (p / "a.txt").write_text("x"), "a.txt", r"reads .npz \(np.savez\('data.npz'"),
        (
            lambda p: np.save(p / "a.npy", X),
            "a.npy",
            r"needs its labels in labels.npy; or save both",
        ),
        (lambda p: np.save(p / "labels.npy", Y), "labels.npy", "holds labels; name the file of"),
        (
            lambda p: (p / "c").mkdir() or np.save(p / "c/a.npy", X),
            "c",
            "name one file of it, such as c/a.npy",
        ),
        (lambda p: save(p / "a.npz", a=X), "a.npz", "a.npz: holds nothing; name the images x"),
        (lambda p: save(p / "a.npz", x=X), "a.npz", "'x' needs labels 'y' beside it"),
        (lambda p: save(p / "a.npz", x=X, y=Y, x_test=X, y_test=Y), "a.npz", "holds x and x_test"),
        (lambda p: save(p / "a.npz", x=X, y=Y, classes=["a"]), "a.npz", "labels lie in 0 .. 0"),
        (lambda p: save(p / "a.npz", x=X / 1, y=Y), "a.npz", "float pixels up to 39: divide by 39"),
    ],
)
def test_files_that_cannot_be_read_say_what_to_write(tmp_path, monkeypatch, plant, name, message):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load(name)
    assert "\n" not in str(caught.value)


TENSORS = torch.from_numpy(X)[:, None], torch.from_numpy(Y)


@pytest.mark.parametrize(
    "given",
    [
        (X, Y),
        [X, Y],
        TENSORS,
        from_arrays(X, Y),
        TensorDataset(*TENSORS),
        {"x": X, "y": Y},
        {"test": (X, Y), "train": (X, Y)},
        {"test": TensorDataset(*TENSORS), "validation": {"image": X, "label": Y}},
        ((X[:9], Y[:9]), (X, Y)),
        ((X[:9], Y[:9]), (X[:3], Y[:3]), (X, Y)),
    ],
    ids=lambda given: type(given).__name__,
)
def test_every_object_gives_the_images_to_attack(given):
    assert own_data(given, "mine").for_evaluation("mine").test.digest == from_arrays(X, Y).digest


def test_splits_are_kept_as_they_are(tmp_path):
    data = load("digits")
    own = own_data(data, "mine")
    assert own.splits is data and own.for_evaluation("mine").test is data.test


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "a sample is"),
        (3, "is no data set"),
        ({"train": {"x_train": X, "y_train": Y}}, "mine/train: has parts of its own"),
        (
            {
                "train": ImageSet(
                    torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), 2, "a", 1.0, ("a", "b")
                ),
                "test": ImageSet(
                    torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), 2, "b", 1.0, ("b", "a")
                ),
            },
            "number both by the same names",
        ),
    ],
)
def test_other_objects_are_rejected(given, message):
    with pytest.raises(ValueError, match=message):
        own_data(given, "mine")
