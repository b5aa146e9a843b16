"""Torch files: both formats are read, anything else gets one line that says what it is."""

import pytest
import torch

from spikeguard.storage.npz_files import DamagedFile
from spikeguard.storage.torch_files import read_torch_file


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_tensors_come_back(tmp_path, zipped):
    torch.save({"w": torch.arange(3.0)}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert read_torch_file(tmp_path / "w.pt")["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"these are no weights\n", b"\x00" * 64])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"w\.pt cannot be read: it is no torch file; save torch"):
        read_torch_file(tmp_path / "w.pt")


def test_a_torch_file_cut_short_is_damaged(tmp_path):
    torch.save({"w": torch.arange(300.0)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:200])
    with pytest.raises(DamagedFile, match=r"w\.pt"):
        read_torch_file(tmp_path / "w.pt")
