"""from_folder(): class folders, order, sizes and channels of image files."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeguard.data import from_folder
from spikeguard.data.own import read_own

Image = pytest.importorskip("PIL.Image")


def write(path, value, *, size=(4, 3), mode="RGB", **options):
    """Write an image whose pixels all are ``value``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


@pytest.fixture
def photos(tmp_path):
    """Three cats and two dogs of 3 x 4 pixels; the red channel is the number of the image."""
    root = tmp_path / "photos"
    for place, name in enumerate(["cat/0.png", "cat/1.png", "cat/more/2.png", "dog/3.png"]):
        write(root / name, (place, 100, 200))
    write(root / "dog" / "4.bmp", (4, 100, 200))
    return root


def reds(images):
    return sorted(images.images[:, 0, 0, 0].tolist())


def test_a_folder_of_classes(photos):
    found = from_folder(photos)
    assert (len(found), found.shape, found.num_classes) == (5, (3, 3, 4), 2)
    assert (found.classes, found.name) == (("cat", "dog"), "photos")
    assert found.images[0, :, 0, 0].tolist()[1:] == [100, 200]
    for label, wanted in enumerate([[0, 1, 2], [3, 4]]):
        assert reds(found.subset((found.labels == label).nonzero()[:, 0])) == wanted


def test_classes_are_sorted_by_name_as_in_torchvision(tmp_path):
    for name in ("b", "10", "a", "2"):
        write(tmp_path / "x" / name / "0.png", 0, mode="L")
    assert from_folder(tmp_path / "x").classes == ("10", "2", "a", "b")


def test_the_first_images_have_the_proportions_of_the_classes(tmp_path):
    """30 of each of 3 classes: the first 9 are 3 of each, and the same at every call."""
    for place in range(90):
        write(tmp_path / "x" / str(place // 30) / f"{place}.png", place, mode="L", size=(2, 2))
    found, again = from_folder(tmp_path / "x"), from_folder(tmp_path / "x")
    assert found.labels[:9].bincount().tolist() == [3, 3, 3]
    assert torch.equal(found.images, again.images)
    assert reds(found) == list(range(90))


def test_other_files_and_hidden_ones_are_ignored(photos):
    (photos / "cat" / "notes.txt").write_text("no image")
    (photos / "cat" / ".DS_Store").write_bytes(b"\0")
    (photos / ".cache").mkdir()
    (photos / "list.csv").write_text("a,b")
    write(photos / "cat" / ".thumbnails" / "0.png", (9, 9, 9))
    assert len(from_folder(photos)) == 5


@pytest.mark.parametrize(
    ("mode", "value", "options", "pixel"),
    [
        ("L", 7, {}, [7]),
        ("1", 1, {}, [255]),
        ("RGB", (1, 2, 3), {}, [1, 2, 3]),
        ("RGBA", (1, 2, 3, 255), {}, [1, 2, 3]),
        ("LA", (7, 255), {}, [7]),
    ],
)
def test_modes_become_one_or_three_channels(tmp_path, mode, value, options, pixel):
    write(tmp_path / "x" / "a" / "0.png", value, mode=mode, **options)
    assert from_folder(tmp_path / "x").images[0, :, 0, 0].tolist() == pixel


def test_a_palette_is_resolved(tmp_path):
    (tmp_path / "x" / "a").mkdir(parents=True)
    Image.new("RGB", (2, 2), (10, 20, 30)).quantize(4).save(tmp_path / "x" / "a" / "0.png")
    assert from_folder(tmp_path / "x").images[0, :, 0, 0].tolist() == [10, 20, 30]


def deep(path):
    Image.fromarray(np.full((3, 4), 40000, dtype="uint16")).save(path)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda p: write(p, (0, 0, 0), size=(5, 3)), "z.png: 5 x 3 pixels, but 0.png has 4 x 3"),
        (lambda p: write(p, (0, 0, 0), size=(5, 3)), r"Image.open\(f\).resize\(\(4, 3\)\).save"),
        (
            lambda p: write(p, 0, mode="L"),
            r"it is grey, but 0.png is in colour; convert it, .*'RGB'",
        ),
        (lambda p: write(p, (0, 0, 0, 9), mode="RGBA"), "transparent pixels"),
        (deep, "more than 8 bits; save them as arrays"),
        (lambda p: p.write_bytes(b"no image"), "not an image that Pillow can read"),
        (lambda p: p.write_bytes(b""), "not an image that Pillow can read"),
    ],
)
def test_an_image_that_does_not_fit_is_named(photos, plant, message):
    from_folder(photos)
    plant(photos / "dog" / "z.png")
    with pytest.raises(ValueError, match=message) as caught:
        from_folder(photos)
    assert "z.png" in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_file_is_named(photos):
    file = photos / "cat" / "1.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (3, 4, 3), "uint8")).save(file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"1.png: not an image that Pillow can read"):
        from_folder(photos)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images by class; it needs a folder for each class"),
        (["0.png"], "no images by class"),
        (["a/0.txt"], "no images by class"),
        (["a/0.png", "b/0.txt"], "b: no images in this class folder; remove it"),
    ],
)
def test_a_folder_without_class_folders(tmp_path, names, message):
    for name in names:
        write(tmp_path / name, 0, mode="L", format="PNG")
    with pytest.raises(ValueError, match=message):
        from_folder(tmp_path)


def test_a_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        from_folder(tmp_path / "nowhere")


def test_without_pillow_the_line_says_what_to_install(photos, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'spikeguard\[images\]'"):
        from_folder(photos)


def test_parts_share_their_classes(photos):
    """A test folder without dogs has the classes of the training folder."""
    write(photos.parent / "both" / "train" / "cat" / "0.png", 1, mode="L")
    write(photos.parent / "both" / "train" / "dog" / "0.png", 2, mode="L")
    write(photos.parent / "both" / "test" / "dog" / "0.png", 3, mode="L")
    found = read_own(photos.parent / "both")
    assert found.test.classes == found.train.classes == ("cat", "dog")
    assert found.test.labels.tolist() == [1]
    write(photos.parent / "both" / "test" / "fox" / "0.png", 3, mode="L")
    with pytest.raises(ValueError, match="fox is no class of the training images"):
        read_own(photos.parent / "both")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        write(tmp_path / "x" / name / "0.png", 0, mode="L")
    assert read_own(tmp_path / "x").whole.classes == ("bus", "train")


def test_parts_beside_another_folder_are_rejected(tmp_path):
    for name in ("train/a/0.png", "test/a/0.png", "extra/a/0.png"):
        write(tmp_path / name, 0, mode="L")
    with pytest.raises(ValueError, match=r"holds test, train and also extra; move extra away"):
        read_own(Path(tmp_path))
