"""Small CIFAR files of both versions, written here; pickles that must not be executed."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from spikeguard.data.cifar import CIFAR10, CIFAR100, read_cifar
from spikeguard.data.datasets import load
from spikeguard.data.pickles import read_pickle
from tests.toys.data_files import TINY, contents, rows, write_cifar


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("name", TINY)
def test_both_versions_give_the_images_in_order(name, version, nested, tmp_path):
    release = TINY[name]
    folder = write_cifar(release, tmp_path / name if nested else tmp_path, version)
    for root in (tmp_path, folder):  # the data root, or the official folder itself
        train, test = read_cifar(release, root)
        want = list(contents(release).values())
        pixels = np.concatenate([p for p, _ in want[:-1]]).reshape(-1, 3, 32, 32)
        assert torch.equal(train.images, torch.from_numpy(pixels))
        assert train.labels.tolist() == [y for _, labels in want[:-1] for y in labels]
        assert torch.equal(test.images, torch.from_numpy(want[-1][0].reshape(-1, 3, 32, 32)))
        assert test.labels.tolist() == want[-1][1]
        assert (test.num_classes, test.name) == (release.num_classes, f"{name}/test")


def test_a_red_pixel_of_the_file_is_a_red_pixel_of_the_image(tmp_path):
    """Planes are red, green, blue, each row by row: byte 1024 + 32 * 2 + 5 is green at (2, 5)."""
    release = replace(TINY["cifar10"], train=("data_batch_1",), train_rows=1, test_rows=1)
    folder = tmp_path / release.binary
    folder.mkdir()
    row = np.zeros(3073, np.uint8)
    row[1 + 1024 + 32 * 2 + 5] = 200
    for file in ("data_batch_1", "test_batch"):
        (folder / f"{file}.bin").write_bytes(row.tobytes())
    assert read_cifar(release, tmp_path)[1].images.nonzero().tolist() == [[0, 1, 2, 5]]


@pytest.mark.parametrize("protocol", range(5))
def test_every_pickle_protocol_of_an_array_is_read(protocol, tmp_path):
    write_cifar(TINY["cifar10"], tmp_path, "python", protocol)
    assert len(read_cifar(TINY["cifar10"], tmp_path)[0]) == 20


def test_strings_of_python_2_are_read(tmp_path):
    """The official files were written by Python 2: byte strings, and numpy.core by its old name."""
    pixels = rows(1, 0)
    path = tmp_path / "batch"
    path.write_bytes(
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T\x00\x0c\x00\x00" + pixels.tobytes() + b"tbU\x06labels]K\x07au."
    )
    content = read_pickle(path)
    assert np.array_equal(content[b"data"], pixels)
    assert content[b"labels"] == [7]


def test_an_array_in_fortran_order_is_read(tmp_path):
    pixels = np.asfortranarray(rows(3, 0))
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": pixels}, protocol=2))
    assert np.array_equal(read_pickle(tmp_path / "batch")[b"data"], pixels)


@pytest.mark.parametrize("cut", [1, 3073, 3072])
def test_a_truncated_binary_file_is_named_with_its_sizes(cut, tmp_path):
    path = write_cifar(TINY["cifar10"], tmp_path, "binary") / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(
        ValueError, match=f"= 12292 bytes, got {12292 - cut}; .*truncated"
    ) as caught:
        read_cifar(TINY["cifar10"], tmp_path)
    assert str(path) in str(caught.value)


def test_a_binary_file_that_is_too_long_is_rejected(tmp_path):
    path = write_cifar(TINY["cifar100"], tmp_path, "binary") / "test.bin"
    path.write_bytes(path.read_bytes() + bytes(3074))
    with pytest.raises(ValueError, match="too long"):
        read_cifar(TINY["cifar100"], tmp_path)


def test_the_real_releases_ask_for_the_official_sizes(tmp_path):
    assert CIFAR10.sizes["data_batch_5.bin"] == CIFAR10.sizes["test_batch.bin"] == 30_730_000
    assert CIFAR100.sizes == {"train.bin": 153_700_000, "test.bin": 30_740_000}
    write_cifar(TINY["cifar10"], tmp_path, "binary")
    with pytest.raises(ValueError, match="expected 10000 rows of 3073 bytes"):
        load("cifar10", tmp_path)


def test_a_label_out_of_range_names_the_row(tmp_path):
    path = write_cifar(TINY["cifar10"], tmp_path, "binary") / "data_batch_2.bin"
    data = bytearray(path.read_bytes())
    data[2 * 3073] = 10
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"data_batch_2.bin: row 2 has label 10, .* 0 .. 9"):
        read_cifar(TINY["cifar10"], tmp_path)


@pytest.mark.parametrize("name", TINY)
def test_the_error_for_missing_files_names_folders_and_download(name, tmp_path):
    with pytest.raises(ValueError, match=f"run 'spikeguard data download {name}'") as caught:
        load(name, tmp_path)
    assert str(tmp_path / TINY[name].binary) in str(caught.value)
    assert str(tmp_path / TINY[name].python) in str(caught.value)


@pytest.mark.parametrize(
    ("version", "file"), [("binary", "test_batch.bin"), ("python", "data_batch_4")]
)
def test_one_missing_file_is_named(version, file, tmp_path):
    folder = write_cifar(TINY["cifar10"], tmp_path, version)
    (folder / file).unlink()
    with pytest.raises(ValueError, match=f"cifar10: {file} not found in {folder};"):
        read_cifar(TINY["cifar10"], tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": rows(3, 0)}, r"expected data of shape \(4, 3072\), got \(3, 3072\)"),
        ({b"data": None}, "got NoneType"),
        ({b"labels": [0, 1]}, "a list of 4 under b'labels', got 2"),
        ({b"labels": None}, "got NoneType"),
        ({b"labels": [0, 1, 2, 300]}, "something else than class numbers"),
        ({b"labels": [0, 1, 2, b"3"]}, "something else than class numbers"),
        ({b"labels": [0, 1, 2, 10]}, "row 3 has label 10"),
    ],
)
def test_python_files_of_the_wrong_content_are_rejected(change, message, tmp_path):
    folder = write_cifar(TINY["cifar10"], tmp_path, "python")
    content = {b"data": rows(4, 0), b"labels": [0, 1, 2, 3]}
    (folder / "data_batch_1").write_bytes(pickle.dumps({**content, **change}, protocol=2))
    with pytest.raises(ValueError, match=message):
        read_cifar(TINY["cifar10"], tmp_path)


class Command:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return self.target[0], self.target[1]


def test_a_malicious_pickle_is_rejected_and_not_executed(tmp_path):
    import os

    bait = tmp_path / "executed"
    folder = write_cifar(TINY["cifar10"], tmp_path, "python")
    code = pickle.dumps({b"data": Command((os.mkdir, (str(bait),)))}, protocol=2)
    (folder / "data_batch_1").write_bytes(code)
    with pytest.raises(
        ValueError, match=r"rejected: this pickle wants to build \w+\.mkdir; a CIFAR"
    ):
        read_cifar(TINY["cifar10"], tmp_path)
    assert not bait.exists()
    pickle.loads(code)  # an ordinary reader does execute it
    assert bait.exists()


ARRAY = pickle.dumps({b"data": rows(1, 0)}, protocol=2)
REFUSED = {
    "os.system": (b"cos\nsystem\n(S'true'\ntR.", "wants to build os.system;"),
    "eval": (b"cbuiltins\neval\n(S'1'\ntR.", "wants to build builtins.eval"),
    "instance": (b"(S'true'\nios\nsystem\n.", "wants to build os.system"),
    "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x09f2py.exec\x93.", "wants to build numpy.f2py.exec"),
    "elsewhere": (b"Pname\n.", "load an object from elsewhere"),
    "objects": (
        pickle.dumps({b"data": np.array([{}])}, protocol=2),
        "array of type 'O8', not uint8",
    ),
    "floats": (pickle.dumps({b"data": np.eye(2)}, protocol=2), "array of type 'f8', not uint8"),
    "strings": (pickle.dumps({b"data": np.array(["a"])}, protocol=2), "not uint8"),
    "shape": (
        ARRAY.replace(b"K\x01M\x00\x0c\x86", b"K\x01M\x01\x0c\x86"),
        "3072 bytes for an array of",
    ),
    "codec": (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "wants to encode with 'rot13'"),
    "frozen": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\ntRI1\nb.",
        "not made of bytes",
    ),
    "subclass": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\ntR.",
        "a subclass of an array",
    ),
    "list": (pickle.dumps([1, 2]), "holds a list, not a dict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_but_byte_arrays_and_containers_is_built(case, tmp_path):
    code, message = REFUSED[case]
    (tmp_path / "batch").write_bytes(code)
    with pytest.raises(ValueError, match=message) as caught:
        read_pickle(tmp_path / "batch")
    assert str(tmp_path / "batch") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 20, len(ARRAY) // 2, len(ARRAY) - 1])
def test_a_truncated_pickle_is_rejected(length, tmp_path):
    (tmp_path / "batch").write_bytes(ARRAY[:length])
    with pytest.raises(ValueError, match=r"batch: not a whole pickle \(.*\); fetch it again"):
        read_pickle(tmp_path / "batch")


@pytest.mark.parametrize("name", ["ndarray", "dtype"])
def test_a_pickle_cannot_change_the_reader(name, tmp_path):
    """BUILD on a name itself would set attributes on it, which would affect later files."""
    (tmp_path / "bad").write_bytes(b"cnumpy\n" + name.encode() + b"\n(N}S'x'\nI1\nstb.")
    with pytest.raises(ValueError, match=r"rejected|not a whole pickle"):
        read_pickle(tmp_path / "bad")
    (tmp_path / "good").write_bytes(ARRAY)
    assert np.array_equal(read_pickle(tmp_path / "good")[b"data"], rows(1, 0))


def bomb(first, again):
    """A program of many small instructions."""
    return b"\x80\x02" + first + again + b"."


PUT, GET = b"q\x00", b"h\x00"
TRAPS = {
    # 30 levels of (x, x): hashing or printing it takes 2 ** 30 steps
    "key": (bomb(b"}K\x01", b"q\x00h\x00\x86" * 30 + b"K\x01s"), "neither text nor a number"),
    "dtype": (
        bomb(b"cnumpy\ndtype\nK\x01", b"q\x00h\x00\x86" * 30 + b"\x85R"),
        "array of type 'tuple'",
    ),
    "nested": (bomb(b"N", b"\x85" * 500_000), "holds a tuple, not a dict"),
    "instructions": (bomb(b"", b"N" * 2_100_000), "more than 2000000 instructions"),
    "repeated": (
        bomb(
            b"c_codecs\nencode\nq\x01X" + (10**6).to_bytes(4, "little") + b"a" * 10**6 + b"q\x00",
            b"h\x01h\x00\x85R" * 1000,
        ),
        "repeats its text",
    ),
    "claim": (bomb(b"}U\x04dataT", b"\xff\xff\xff\x7f"), "not a whole pickle"),
    "claim of 8 bytes": (bomb(b"}\x8e", b"\xff" * 7 + b"\x7f"), "not a whole pickle"),
    "memo": (bomb(b"}r", b"\xff\xff\xff\xff"), ""),
    "shape": (
        bomb(
            b"}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R(K\x01",
            b"(" + b"K\x01" * 1000 + b"tcnumpy\ndtype\nU\x02u1\x85RK\x00U\x01atbs",
        ),
        "1 bytes for an array",
    ),
    "number": (bomb(b"L" + b"9" * 5000, b"L\n"), "not a whole pickle"),
    "call": (bomb(b"U\x01a)", b"R"), "wants to call something else than a name"),
    "class": (bomb(b"cnumpy\nndarray\n)", b"\x81"), "uses the instruction NEWOBJ"),
    "set": (bomb(b"", b"\x8f"), "uses the instruction EMPTY_SET"),
}


@pytest.mark.parametrize("case", TRAPS)
def test_time_and_memory_are_bounded_by_the_size_of_the_file(case, tmp_path):
    code, message = TRAPS[case]
    (tmp_path / "batch").write_bytes(code)
    if case == "memo":  # an index of 4,294,967,295 allocates nothing
        assert read_pickle(tmp_path / "batch") == {}
        return
    with pytest.raises(ValueError, match=message) as caught:
        read_pickle(tmp_path / "batch")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
