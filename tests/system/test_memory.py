"""Free memory from the files of the system, read from copies."""

import pytest

from spikeguard.system import memory
from spikeguard.system.memory import free_memory, size_text


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    return tmp_path


def test_the_smaller_of_what_is_available_and_what_a_container_leaves(files):
    assert free_memory() is None
    (files / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   500 kB\n")
    assert free_memory() == 500 * 1024
    (files / "memory.current").write_text("1000\n")
    (files / "memory.max").write_text("max\n")
    assert free_memory() == 500 * 1024
    (files / "memory.max").write_text("5000\n")
    assert free_memory() == 4000
    (files / "memory.max").write_text("500\n")
    assert free_memory() == 0


def test_sizes_are_in_mebibytes_or_gibibytes():
    assert [size_text(n) for n in (1, 2**20, 1023 * 2**20, 2**30, 1.5 * 2**30)] == [
        *("under 1 MiB", "1 MiB", "1023 MiB", "1.0 GiB", "1.5 GiB")
    ]


def test_the_file_cache_of_a_container_is_free(files):
    (files / "memory.current").write_text("15000\n")
    (files / "memory.max").write_text("16000\n")
    assert free_memory() == 1000
    (files / "memory.stat").write_text("anon 1000\ninactive_file 13000\nactive_file 1000\n")
    assert free_memory() == 14000
