"""Folders of photographs: ImageNet's layouts, folders of one's own, and what is missing in them."""

import shutil

import pytest
import torch

from spikeguard.cli.entry import main
from spikeguard.data import PhotoSet, load, photo_folder
from spikeguard.data.photos import reading_ahead
from spikeguard.data.photos.photo_folders import read_imagenet
from tests.toys.photos import CLASSES, write_imagenet, write_photo


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    monkeypatch.setenv(reading_ahead.WORKERS, "0")


@pytest.fixture
def root(tmp_path):
    write_imagenet(tmp_path / "imagenet", train=24, val=9)
    return tmp_path


def labelled(photos):
    return {(name, int(y)) for name, y in zip(photos.files.tolist(), photos.labels, strict=True)}


def test_imagenet_is_read_from_class_folders(root):
    data = load("imagenet", root, size=16, augment=["resized_crop", "flip"], val_fraction=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (18, 6, 9)
    assert data.train.classes == data.test.classes == CLASSES
    assert (data.train.shape, data.train.drawn, data.augment) == (
        (3, 16, 16),
        ("resized_crop", "flip"),
        None,
    )
    assert data.mean == (0.485, 0.456, 0.406)
    for name, label in labelled(data.test):
        assert name.decode().startswith(f"{CLASSES[label]}/{CLASSES[label]}_val_")
    assert data.test.labels[:6].bincount().tolist() == [2, 2, 2]  # any first N has all classes


def test_other_augmentations_follow(root):
    data = load("imagenet", root, size=16, augment=["flip", "cutout"], val_fraction=0)
    assert data.train.drawn == ("flip",)
    assert [type(part).__name__ for part in data.augment.parts] == ["Cutout"]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("val.txt", "{file} {number}"),
        ("LOC_val_solution.csv", "{stem},{name} 111 108 230 170"),
        ("val/val_annotations.txt", "{file}\t{name}\t0\t0\t62\t62"),
    ],
)
def test_a_flat_validation_folder_has_its_labels_in_a_file(root, place, line):
    """The same images and labels as from class folders."""
    folder = root / "imagenet"
    _, wanted = read_imagenet(root)
    lines = []
    for file, label in sorted(labelled(wanted)):
        path = folder / "val" / file.decode()
        target = folder / "val" / path.name if place != "val/val_annotations.txt" else None
        target = target or folder / "val" / "images" / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.move(path, target)
        words = {"file": path.name, "stem": path.stem, "name": CLASSES[label], "number": label}
        lines.append(line.format(**words))
    for name in CLASSES:
        (folder / "val" / name).rmdir()
    lines = ["ImageId,PredictionString", *lines] if place.endswith("csv") else lines
    (folder / place).write_text("\n".join(lines) + "\n")
    _, found = read_imagenet(root)
    stem = {(name.split(b"/")[-1], label) for name, label in labelled(wanted)}
    assert {(name.split(b"/")[-1], label) for name, label in labelled(found)} == stem
    assert len(found) == 9 and found.classes == CLASSES
    (folder / place).write_text("\n".join([*lines[:-1], "x.JPEG n99"]))
    with pytest.raises(ValueError, match=rf"line {len(lines)}: the name of an image and its class"):
        read_imagenet(root)
    (folder / place).write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="has no line for it"):
        read_imagenet(root)


def test_a_folder_of_ones_own_is_streamed_where_a_size_is_given(root):
    """Images of several sizes; mean and deviation are those of the decoded training images."""
    data = load(root / "imagenet", size=16, val_fraction=0)
    assert isinstance(data.train, PhotoSet) and isinstance(data.val, PhotoSet)
    assert len(data.val) == 9  # a folder val is for validation, and the test is cut from the rest
    x = data.train.batch(slice(None))[0].double()
    assert torch.tensor(data.mean) == pytest.approx(x.mean((0, 2, 3)), abs=1e-4)
    with pytest.raises(ValueError, match="resize all images to one size"):
        load(root / "imagenet", val_fraction=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "train not found in"),
        (lambda folder: shutil.rmtree(folder / "val"), "val not found; it holds the images"),
        (lambda folder: write_photo(folder / "val/n99/0.JPEG", 0), "n99 is no class of the train"),
        (lambda folder: shutil.rmtree(folder / "val/n01") or (folder / "val/n01").mkdir(), "no im"),
    ],
)
def test_a_missing_folder_or_class_is_one_line_and_exit_code_2(root, capsys, change, said):
    change(root / "imagenet")
    out = root / "run"
    words = ["train", "demo/vanilla", "data.name=imagenet", "data.size=16", "data.augment="]
    assert main([*words, "--data-root", str(root), "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
    assert not out.exists()


def test_a_class_may_have_no_validation_image(root):
    """As in a subset of the validation images; the labels stay those of the training."""
    shutil.rmtree(root / "imagenet/val/n01")
    _, found = read_imagenet(root)
    assert found.labels.unique().tolist() == [1, 2] and found.num_classes == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.name=imagenet"], "write the one to cut them to, size"),
        (["data.name=imagenet", "data.size=0"], "data.size"),
        (["data.size=16"], "size is for image files, which digits/train is not"),
        (["data.augment=[resized_crop]"], "resized_crop is for image files"),
        (["data.name=imagenet", "data.size=16", "data.skip_bad=true"], "is for event recordings"),
    ],
)
def test_a_size_is_needed_for_files_and_for_files_only(root, capsys, settings, said):
    out = root / "run"
    words = ["train", "demo/vanilla", *settings, "--data-root", str(root), "--out", str(out)]
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
    assert not out.exists()


def test_data_check_decodes_every_image(root, capsys):
    assert main(["data", "check", "imagenet", "--data-root", str(root)]) == 0
    assert "imagenet  24     9     3 x 64 x 64  complete" in capsys.readouterr().out
    bad = next((root / "imagenet/train/n02").iterdir())
    bad.write_bytes(b"no image")
    assert main(["data", "check", "imagenet", "--data-root", str(root)]) == 2
    assert f"{bad}: not an image" in capsys.readouterr().err


def test_names_outside_ascii_are_kept(tmp_path):
    write_photo(tmp_path / "größe" / "bild ü.png", 0)
    found = photo_folder(tmp_path, 8)
    assert found.classes == ("größe",) and found.batch([0])[0].shape == (1, 3, 8, 8)
