"""Official digests: a file with one changed byte is named; the same files, unchanged, are not."""

import gzip
import hashlib
import warnings

import numpy as np
import pytest

from spikeguard.cli.entry import main
from spikeguard.data import official
from spikeguard.data.cifar import CIFAR10, CIFAR100
from spikeguard.data.datasets import load
from spikeguard.data.official import OFFICIAL, ChangedFileWarning, is_official
from tests.toys.data_files import TINY, write_cifar, write_mnist

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Small files that count as the official ones, of both versions."""
    tiny = TINY["cifar10"]
    for version in ("binary", "python"):
        folder = write_cifar(tiny, tmp_path / version, version)
        for path in folder.iterdir():
            method = hashlib.sha256 if path.suffix else hashlib.md5
            monkeypatch.setitem(
                OFFICIAL["cifar10"], path.name, method(path.read_bytes()).hexdigest()
            )
    monkeypatch.setattr("spikeguard.data.datasets.CIFAR10", tiny)
    return tmp_path


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("version", "file"), [("binary", "data_batch_3.bin"), ("python", "data_batch_3")]
)
@pytest.mark.parametrize("place", ["label", "pixel"])
def test_one_flipped_bit_is_a_warning_and_data_check_exits_with_2(
    version, file, place, cifar, capsys
):
    root = cifar / version
    load("cifar10", root)  # no warning
    assert main(["data", "check", "cifar10", "--data-root", str(root)]) == 0
    assert "complete" in capsys.readouterr().out
    path = next(root.rglob(file))
    at = (
        {"label": 3073, "pixel": 2000}[place]
        if version == "binary"
        else {"label": path.read_bytes().rindex(b"K\x03") + 1, "pixel": 2000}[place]
    )
    flip(path, at)
    with pytest.warns(
        ChangedFileWarning, match=f"cifar10: changed: .*{file} is not the official file"
    ):
        load("cifar10", root)
    assert main(["data", "check", "cifar10", "--data-root", str(root)]) == 2
    shown = capsys.readouterr()
    assert "complete" not in shown.out
    assert f"{file} is not the official file" in shown.err
    assert main(["data", "check", "--data-root", str(root)]) == 0  # all data sets: a table
    line = next(each for each in capsys.readouterr().out.splitlines() if each.startswith("cifar10"))
    assert "changed:" in line


def test_all_changed_files_are_named_in_one_warning(cifar):
    for file in ("data_batch_1.bin", "test_batch.bin"):
        flip(next(cifar.rglob(file)), 100)
    with pytest.warns(ChangedFileWarning) as caught:
        load("cifar10", cifar / "binary")
    (text,) = (str(each.message) for each in caught)
    assert "data_batch_1.bin" in text
    assert "test_batch.bin are not the official files" in text


def test_mnist_is_compared_by_content(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    for path in tmp_path.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(OFFICIAL["mnist"], path.name, digest)
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    load("mnist", tmp_path, val_fraction=0.4)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] ^= 1
    labels.unlink()
    load("mnist", tmp_path, val_fraction=0.4)  # the .gz
    labels.with_name(f"{labels.name}.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.warns(ChangedFileWarning, match=r"t10k-labels-idx1-ubyte.gz is not the official"):
        load("mnist", tmp_path, val_fraction=0.4)


def test_every_file_that_is_read_has_a_digest():
    for release in (CIFAR10, CIFAR100):
        python = {*release.train, release.test}
        assert set(OFFICIAL[release.name]) == python | set(release.sizes)
    for name, files in OFFICIAL.items():
        for file, digest in files.items():
            md5 = name != "mnist" and not file.endswith(".bin")
            assert len(digest) == (32 if md5 else 64)


def test_a_worker_process_does_not_warn_again(cifar, monkeypatch):
    flip(next(cifar.rglob("test_batch.bin")), 100)
    monkeypatch.setattr(official.multiprocessing, "parent_process", lambda: object())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("cifar10", cifar / "binary")


def test_digests_of_bytes_and_of_files_agree(tmp_path):
    data = np.arange(1000).tobytes()
    (tmp_path / "f").write_bytes(data)
    for method in ("md5", "sha256"):
        assert official.digest(data, method) == official.digest(tmp_path / "f", method)
    assert not is_official("mnist", "t10k-labels-idx1-ubyte", data)
