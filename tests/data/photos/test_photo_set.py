"""PhotoSet: the same bits from any number of processes; nothing held but names; bad files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from spikeguard.data import BadImage, PhotoSet, photo_folder
from spikeguard.data.images import content
from spikeguard.data.photos import reading_ahead
from spikeguard.data.stratified import split_validation
from spikeguard.runs.model_card import image_facts
from tests.toys.photos import write_imagenet


@pytest.fixture
def photos(tmp_path):
    return photo_folder(write_imagenet(tmp_path, train=24) / "train", 16)


@pytest.fixture
def no_workers(monkeypatch):
    monkeypatch.setenv(reading_ahead.WORKERS, "0")


def drawn(photos):
    return replace(photos, drawn=("resized_crop", "flip"))


def test_it_takes_the_place_of_an_image_set(photos, no_workers):
    x, y = photos.batch([3, 0])
    assert (x.shape, x.dtype, photos.shape) == ((2, 3, 16, 16), torch.float32, (3, 16, 16))
    assert float(x.min()) >= 0 and float(x.max()) <= 1
    assert y.tolist() == photos.labels[[3, 0]].tolist()
    assert torch.equal(photos.batch(slice(4))[0][3], x[0])
    assert torch.equal(photos.subset([3]).batch([0])[0][0], x[0])
    assert not hasattr(photos, "images")
    train, val = split_validation(drawn(photos), 0.25, seed=0)
    assert isinstance(val, PhotoSet) and len(train) == 18 and len(val) == 6
    names = {*train.files.tolist(), *val.files.tolist()}
    assert names == set(photos.files.tolist())


def test_the_pixels_are_those_of_the_file(tmp_path, no_workers):
    """An image of one colour has it in every pixel, at every size."""
    Image.new("RGB", (31, 17), (10, 20, 30)).save(tmp_path / "0.png")
    found = PhotoSet([0], 1, "one", root=tmp_path, files=[b"0.png"], size=5)
    x, _ = found.batch([0])
    assert torch.equal(x[0], (torch.tensor([10.0, 20, 30]) / 255)[:, None, None].expand(3, 5, 5))


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bits(photos, monkeypatch):
    """Of the centres and of random parts, read ahead or not; a worker names a broken file too."""
    index, epochs, found = (
        torch.randperm(24, generator=torch.Generator().manual_seed(1)),
        (0, 3),
        {},
    )
    for count in (0, 1, 2):
        monkeypatch.setenv(reading_ahead.WORKERS, str(count))
        reading_ahead.close()
        random = drawn(photos)
        batches = [random.batch(index)[0]]
        for epoch in epochs:
            random.read_ahead(index, seed=7, epoch=epoch)
            (started,) = random._ahead.values()
            assert isinstance(started, list) == (count > 0)
            batches.append(random.training_batch(index, seed=7, epoch=epoch)[0])
            assert not random._ahead
            batches.append(random.training_batch(index, seed=7, epoch=epoch)[0])
        found[count] = batches
    bad = photos.root / photos.files[20].decode()
    bad.write_bytes(b"no image")
    with pytest.raises(BadImage, match=f"{bad.name}: not an image") as caught:  # in a worker
        photos.batch(slice(24))
    assert "\n" not in str(caught.value)
    reading_ahead.close()
    for count in (1, 2):
        for one, other in zip(found[0], found[count], strict=True):
            assert torch.equal(one, other)
    centre, first, again, later, _ = found[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, later) and not torch.equal(first, centre)


def test_the_draws_of_an_image_depend_on_seed_epoch_and_position_only(photos, no_workers):
    random = drawn(photos)
    together = random.training_batch([5, 2, 9], seed=1, epoch=4)[0]
    alone = random.training_batch([9], seed=1, epoch=4)[0]
    assert torch.equal(together[2], alone[0])
    for seed, epoch in ((2, 4), (1, 5)):
        other = random.training_batch([5, 2, 9], seed=seed, epoch=epoch)[0]
        assert not torch.equal(together, other)
    assert torch.equal(photos.training_batch([9], seed=1, epoch=4)[0], photos.batch([9])[0])


def test_at_most_two_batches_are_announced(photos, no_workers):
    for start in (0, 4, 8, 12):
        photos.read_ahead(range(start, start + 4), seed=0, epoch=0)
        assert len(photos._ahead) <= 2
    photos.read_ahead([], seed=0, epoch=0)  # nothing comes after the last batch
    assert len(photos._ahead) == 1


def test_what_is_held_of_an_image_is_its_name_and_its_label(tmp_path):
    """A hundred thousand images that do not exist: no file is opened before it is used."""
    n = 100_000
    files = np.array([b"n01440764/n01440764_%05d.JPEG" % k for k in range(n)])
    labels = torch.zeros(n, dtype=torch.int64)
    found = PhotoSet(labels, 1, "many", root=tmp_path, files=files, size=224)
    held = sum(getattr(each, "nbytes", 0) for each in vars(found).values())
    assert held == n * (len(files[0]) + 8)
    assert len(found.digest) == 64 and len(found.subset(slice(10))) == 10


def test_the_digest_covers_names_labels_and_size_and_survives_a_repair(photos):
    same = replace(photos)
    assert same.digest == photos.digest == replace(photos, drawn=("flip",)).digest
    others = [
        replace(photos, size=17),
        photos.subset(slice(23)),
        replace(photos, labels=photos.labels.flip(0)),
        replace(photos, files=photos.files[::-1]),
    ]
    assert len({photos.digest, *(each.digest for each in others)}) == 5
    file = photos.root / photos.files[0].decode()
    intact = file.read_bytes()
    file.write_bytes(b"damaged")
    assert replace(photos).digest == photos.digest
    file.write_bytes(intact)


def test_results_are_of_the_bytes_of_their_files(tmp_path):
    """Two corruptions: the same names, labels and size, and other pixels."""
    fog, snow = (
        photo_folder(write_imagenet(tmp_path / name, train=24) / "train", 16)
        for name in ("fog", "snow")
    )
    assert fog.digest == snow.digest and content(fog) == content(snow)
    file = snow.root / snow.files[20].decode()
    file.write_bytes(file.read_bytes()[::-1])
    snow = replace(snow)
    assert fog.digest == snow.digest and content(fog) != content(snow)
    assert content(fog, 20) == content(snow, 20) and content(fog, 21) != content(snow, 21)
    assert image_facts(fog)["images"] != image_facts(snow)["images"]


def test_a_broken_image_is_named_and_the_others_are_read(photos, no_workers):
    bad = photos.root / photos.files[20].decode()
    bad.write_bytes(b"no image")
    with pytest.raises(BadImage) as caught:
        photos.batch(slice(24))
    assert str(caught.value).startswith(f"{bad}: ") and "\n" not in str(caught.value)
    with pytest.raises(BadImage, match="not an image"):
        photos.read_all()
    assert len(photos.batch(slice(20))[0]) == 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 0}, "size is a whole number of pixels >= 1, got 0"),
        ({"size": 2.5}, "got 2.5"),
        ({"drawn": ("crop",)}, "got 'crop'"),
        ({"files": np.empty(0, "S1"), "labels": []}, "holds no images"),
        ({"labels": [9] * 24}, "labels lie in 0 .. 2"),
        ({"classes": ("a",)}, "3 classes but 1 class names"),
    ],
)
def test_what_does_not_fit_is_rejected(photos, change, said):
    with pytest.raises(ValueError, match=said):
        replace(photos, **change)
