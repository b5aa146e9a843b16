"""Freed memory is reused by the next pass: few pages are mapped again."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from spikeguard.system.allocator import keep_freed_memory

CODE = """
import resource, sys, torch
from spikeguard.system.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def work():
    parts = [torch.empty(2**20) for _ in range(30)]  # 4 MB each
    for part in parts:
        part.zero_()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.set_num_threads(1)
work(); work()
before = faults()
for _ in range(10):
    work()
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_in_the_process():
    """Ten times 30 tensors of 1024 pages, most of them allocated without a page fault.

    Without the call glibc returns memory beyond twice its largest block to the system.
    """

    def faults(way):
        words = [sys.executable, "-c", CODE, way]
        settings = ("MALLOC", "GLIBC", "LD_PRELOAD")  # other settings of the allocator
        env = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
        return int(done.stdout)

    kept = faults("keep")  # a block at the end of the heap can keep it whole in the other case too
    assert any(5 * kept < faults("usual") for _ in range(5))


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_without_mallopt_nothing_happens(error, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    keep_freed_memory()
