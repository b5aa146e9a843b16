"""npz and npy files: whole ones, damaged ones, and ones that claim too much."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from spikeguard.data.array_files import read_npy, read_npz

X = np.arange(24, dtype="uint8").reshape(2, 3, 4)


def everything(name):
    return True


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_is_read_back(tmp_path, save):
    save(tmp_path / "a.npz", x=X, y=np.array([1, 2]), f=np.asfortranarray(X[0] * 0.5), s="text")
    found = read_npz(tmp_path / "a.npz", everything)
    assert np.array_equal(found["x"], X) and np.array_equal(found["f"], X[0] * 0.5)
    assert found["y"].tolist() == [1, 2]
    assert set(read_npz(tmp_path / "a.npz", "x".__eq__)) == {"x"}


def test_an_npy_file_is_read_back(tmp_path):
    np.save(tmp_path / "a.npy", X)
    assert np.array_equal(read_npy(tmp_path / "a.npy"), X)
    np.save(tmp_path / "a.npy", np.asfortranarray(X[0]))
    assert np.array_equal(read_npy(tmp_path / "a.npy"), X[0])


def header(shape, dtype="|u1"):
    file = io.BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def test_an_array_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path):
    """80 GB are claimed; less than 10 MB are allocated."""
    content = header((80_000_000_000,)) + bytes(100)
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    tracemalloc.start()
    for read, said in (
        (lambda: read_npy(tmp_path / "a.npy"), "claims 76293 MB in a file of 0 MB"),
        (lambda: read_npz(tmp_path / "a.npz", everything), r"declares \(80000000000,\) uint8 in"),
    ):
        with pytest.raises(ValueError, match=said):
            read()
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_bomb_is_rejected_and_a_well_compressed_file_is_not(tmp_path):
    """100 MB of zeros compress to 0.1 MB, more than 100 to 1; 60 MB are always read."""
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(100 << 20, "uint8"))
    with pytest.raises(ValueError, match="would unpack to 104857"):
        read_npz(tmp_path / "bomb.npz", everything)
    np.savez_compressed(tmp_path / "small.npz", x=np.zeros(60 << 20, "uint8"))
    assert read_npz(tmp_path / "small.npz", everything)["x"].size == 60 << 20


def test_python_objects_are_rejected_and_not_loaded(tmp_path):
    objects = np.empty(2, dtype=object)
    np.savez(tmp_path / "a.npz", x=objects)
    np.save(tmp_path / "a.npy", objects)
    for read in (
        lambda: read_npy(tmp_path / "a.npy"),
        lambda: read_npz(tmp_path / "a.npz", everything),
    ):
        with pytest.raises(ValueError, match=r"holds Python objects, .*np.savez\('data.npz'"):
            read()


def test_every_truncation_is_one_line(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=X, y=[0, 1])
    np.save(tmp_path / "a.npy", X)
    for name, read in (("a.npz", lambda path: read_npz(path, everything)), ("a.npy", read_npy)):
        content = (tmp_path / name).read_bytes()
        for size in range(0, len(content), 7):
            (tmp_path / name).write_bytes(content[:size])
            with pytest.raises(ValueError, match=f"not a whole {name[2:]} file") as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_harmless_or_one_line(tmp_path):
    """The checksums of the zip file find changes of the arrays; an npy file has none."""
    np.savez_compressed(tmp_path / "a.npz", x=X)
    content = (tmp_path / "a.npz").read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        (tmp_path / "a.npz").write_bytes(changed)
        try:
            found = read_npz(tmp_path / "a.npz", everything)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert all(np.array_equal(array, X) for array in found.values())
