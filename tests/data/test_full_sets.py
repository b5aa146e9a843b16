"""The full data sets, bit for bit: run where copies of them are on disk."""

import gzip
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spikeguard.data.cifar import CIFAR10, CIFAR100, read_binary
from spikeguard.data.datasets import load
from spikeguard.data.downloads import SOURCES
from spikeguard.data.idx import read_mnist
from spikeguard.data.official import OFFICIAL, is_official

STORE = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.data,
    pytest.mark.skipif(not STORE.is_dir(), reason="no ../shared/data beside the repository"),
]

MNIST = {
    "train": (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    "test": (
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
}
CIFAR = {
    "cifar10": (
        CIFAR10,
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    ),
    "cifar100": (
        CIFAR100,
        "4cb8e5d9309da489bf6b19cc10cd96c3ae6f8daf225380b605aaee4c0d6aee19",
        "4dad7d09c7c97d33f6cb928d705cf4196221316fd6e31bdd978a08ed9103ee0b",
    ),
}


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array, np.uint8).tobytes()).hexdigest()


def test_mnist_is_the_official_one(tmp_path):
    subprocess.run(
        [sys.executable, STORE / "unpack.py", tmp_path, "mnist"], check=True, capture_output=True
    )
    parts = dict(zip(("train", "test"), read_mnist(tmp_path), strict=True))
    for name, part in parts.items():
        assert sha256(part.images[:, 0].numpy()) == MNIST[name][0]
        assert sha256(part.labels.numpy()) == MNIST[name][1]
    for file, wanted in OFFICIAL["mnist"].items():
        packed = next(tmp_path.rglob(f"{file}.gz"))
        assert hashlib.md5(packed.read_bytes()).hexdigest() == SOURCES["mnist"].files[packed.name]
        assert hashlib.sha256(gzip.decompress(packed.read_bytes())).hexdigest() == wanted
    splits = load("mnist", tmp_path, train_limit=1000, test_limit=10)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (900, 100, 10)
    assert splits.test.labels.tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_test_images_are_the_official_ones(name, tmp_path):
    image = pytest.importorskip("PIL.Image")
    release, pixels, labels = CIFAR[name]
    archive = zipfile.ZipFile(STORE / name / "test.zip")
    strips = [
        np.asarray(image.open(io.BytesIO(archive.read(member))).convert("RGB"))
        for member in sorted(archive.namelist())
        if member.endswith(".webp")
    ]
    planes = np.concatenate([strip.reshape(-1, 32, 32, 3) for strip in strips])
    heads = [
        np.load(io.BytesIO(archive.read(f"{kind}.npy")))[:, None]
        for kind in ("coarse", "labels")[2 - release.labels :]
    ]
    table = np.concatenate([*heads, planes.transpose(0, 3, 1, 2).reshape(len(planes), -1)], 1)
    path = tmp_path / f"{release.test}.bin"
    path.write_bytes(table.astype(np.uint8).tobytes())
    x, y = read_binary(path, release.labels, release.test_rows)
    assert sha256(x.permute(0, 2, 3, 1).numpy()) == pixels
    assert sha256(y.numpy()) == labels
    assert is_official(name, path.name, path)  # so the digest is that of these pixels
