"""Arrays in a zip whose headers claim other sizes than the file has."""

import io
import struct
import zipfile

import numpy as np
import pytest

from spikeguard.storage.atomic_files import write_npz
from spikeguard.storage.npz_files import DEFLATE, DamagedFile, read_npz

ARRAYS = {
    "right:pgd": np.linspace(0, 1, 50),
    "labels": np.arange(50),
    "search": np.array(["[1, 2]", "\u00e9"]),
    "seconds": np.array(0.5),
    "none": np.zeros((0, 3)),
    "zero": np.zeros(50, dtype=bool),
}


def npy(array, header=None):
    """The bytes of an array file, with another header if one is given."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    if header is None:
        return buffer.getvalue()
    text = repr(header).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + array.tobytes()


def archive(path, *, method=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", method) as target:
        for name, data in members.items():
            target.writestr(f"{name}.npy", data)
    return path


def test_what_was_written_is_read(tmp_path):
    write_npz(tmp_path / "a.npz", **ARRAYS)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    assert list(read_npz(tmp_path / "a.npz", ["labels"])) == ["labels"]
    np.savez(tmp_path / "plain.npz", **ARRAYS)  # without compression, by numpy itself
    assert np.array_equal(read_npz(tmp_path / "plain.npz")["labels"], ARRAYS["labels"])


def header(shape, descr="<f8"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


HOSTILE = {
    "80 GB": (npy(np.zeros(5), header((10_000_000_000,))), r"declares \(10000000000,\) float64 in"),
    "more": (npy(np.zeros(5), header((6,))), "declares"),
    "less": (npy(np.zeros(5), header((4,))), "declares"),
    "negative": (npy(np.zeros(4), header((-2, -2))), "declares"),
    "objects": (npy(np.zeros(5), header((5,), "|O")), "holds object"),
    "records": (npy(np.zeros(5), header((5,), [("a", "<f8")])), "not numbers or text"),
    "dates": (npy(np.zeros(5), header((5,), "<M8[s]")), "not numbers or text"),
    "wide text": (npy(np.zeros(5), header((5,), "<U99999999")), "declares"),
    "text": (b"hello, this is no array", "magic"),
    "empty": (b"", "magic|EOF"),
    "header": (npy(np.zeros(5))[:20], "EOF"),
    "long header": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{", "EOF"),
    "code": (b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os')", "malformed"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_lying_header_is_one_line(case, tmp_path):
    data, message = HOSTILE[case]
    path = archive(tmp_path / "a.npz", x=data)
    with pytest.raises(DamagedFile, match=f"a.npz: damaged: .*({message})") as caught:
        read_npz(path)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_rejected_before_it_is_unpacked(tmp_path):
    """Zeros compress 1000 times: 320 KB on disk, 320 MB in memory."""
    big = npy(np.zeros(40_000_000))
    path = archive(tmp_path / "bomb.npz", x=big)
    assert path.stat().st_size < 500_000
    with pytest.raises(DamagedFile, match="bytes would unpack to 320000"):
        read_npz(path)
    assert len(read_npz(archive(tmp_path / "twin.npz", x=npy(np.zeros(5_000_000))))["x"]) == 5e6


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path):
    write_npz(tmp_path / "a.npz", **ARRAYS)
    whole = (tmp_path / "a.npz").read_bytes()
    harmless = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "b.npz").write_bytes(damaged)
        try:
            found = read_npz(tmp_path / "b.npz")
        except DamagedFile:
            continue
        harmless += 1  # a date, or who wrote it
        assert list(found) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert np.array_equal(found[name], array)
    assert harmless < len(whole) / 3


@pytest.mark.parametrize("name", ["x.txt", "x"])
def test_other_members_are_rejected(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as target:
        target.writestr(name, npy(np.zeros(2)))
    with pytest.raises(DamagedFile, match="it holds"):
        read_npz(tmp_path / "a.npz")


def test_an_array_that_is_missing_is_named(tmp_path):
    write_npz(tmp_path / "a.npz", x=np.zeros(2))
    with pytest.raises(DamagedFile, match="it holds no 'y'"):
        read_npz(tmp_path / "a.npz", ["x", "y"])
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "b.npz")


def test_sparse_arrays_compress_more_than_a_file_of_others_may(tmp_path):
    """Zip compresses at most 1032 times, which an own result of sparse events comes near."""
    path = tmp_path / "sparse.npz"
    np.savez_compressed(path, x=np.zeros(100 << 20, np.uint8))
    with pytest.raises(DamagedFile, match="would unpack to"):
        read_npz(path)
    assert read_npz(path, ratio=DEFLATE)["x"].sum() == 0
