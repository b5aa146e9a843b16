"""MATLAB files of version 5 against files written by hand, and damaged ones."""

from contextlib import suppress

import pytest

from spikeguard.data.events.mat_files import read_mat
from tests.toys.event_files import mat

MATRIX = [[1, -2, 3], [40, 5, 60]]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 5, 9])
@pytest.mark.parametrize("name", ["out1", "events"])
def test_a_written_matrix_is_read_back(tmp_path, compressed, order, kind, name):
    path = tmp_path / "0.mat"
    path.write_bytes(mat(MATRIX, name, compressed=compressed, order=order, kind=kind))
    assert read_mat(path, name).tolist() == MATRIX


def test_other_variables_are_passed_over(tmp_path):
    path = tmp_path / "0.mat"
    path.write_bytes(mat([[7]], "other") + mat(MATRIX)[128:])
    assert read_mat(path, "out1").tolist() == MATRIX


def test_scipy_reads_the_files_of_these_tests_alike(tmp_path):
    loadmat = pytest.importorskip("scipy.io", reason="no scipy").loadmat
    path = tmp_path / "0.mat"
    path.write_bytes(mat(MATRIX))
    assert loadmat(path)["out1"].tolist() == MATRIX


FAULTS = {
    "empty": (lambda raw: b"", "not a MATLAB file of version 5"),
    "text": (lambda raw: b"t x y p\n" * 40, "not a MATLAB file of version 5"),
    "version 7.3": (lambda raw: b"MATLAB 7.3 MAT-file" + raw[19:], "7.3; save it with '-v7'"),
    "cut": (lambda raw: raw[:-8], "damaged or truncated"),
    "cut after the header": (lambda raw: raw[:131], "damaged or truncated"),
    "no variable": (lambda raw: raw[:128], "has no numeric array 'out1', it holds nothing"),
    "other name": (lambda raw: mat(MATRIX, "x"), "has no numeric array 'out1', it holds 'x'"),
    "bits changed": (lambda raw: raw[:150] + b"\xff" * 9 + raw[159:], "damaged or truncated"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_file_is_one_line(tmp_path, fault, compressed):
    change, line = FAULTS[fault]
    path = tmp_path / "0.mat"
    path.write_bytes(change(mat(MATRIX, compressed=compressed)))
    with pytest.raises(ValueError, match=line) as caught:
        read_mat(path, "out1")
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("at", range(128, 260, 1))
def test_no_changed_byte_crashes_the_reader(tmp_path, at):
    raw = bytearray(mat(MATRIX, compressed=False))
    path = tmp_path / "0.mat"
    for value in (0, 1, 127, 255):
        raw[at % len(raw)] = value
        path.write_bytes(raw)
        with suppress(ValueError):
            read_mat(path, "out1")
