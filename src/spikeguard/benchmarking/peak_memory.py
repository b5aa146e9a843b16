"""Peak memory of one piece of work, measured in a fresh process.

``python -m spikeguard.benchmarking.peak_memory JSON`` measures and prints a number;
:func:`peak_mib` starts it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.benchmarking.networks import Setup, build, sample
from spikeguard.benchmarking.timing import in_format
from spikeguard.benchmarking.variants import Variant, ready, variant

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MeasurementFailed", "measure", "peak_cuda_mib", "peak_mib"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
# The allocator returns freed memory to the system at once, so resident memory is memory in use.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class MeasurementFailed(RuntimeError):
    """The measuring process ended without a number."""


def peak_mib(setup: Setup, work: str, name: str, *, channels_last: bool = False) -> float:
    """Return the peak of resident memory during a piece of work, above the level before it.

    The work runs in a fresh process of one thread, after a warm-up. The level before it includes
    the weights and, in training, the gradients of the warm-up, which the step frees and allocates
    again.

    Args:
        setup: The network and its batch.
        work: One of ``WORKS``.
        name: Name of the variant.
        channels_last: Whether the variant uses that memory format.

    Returns:
        MiB.

    Raises:
        MeasurementFailed: If the process fails; the message ends with the last line of its errors.
    """
    order = {"setup": asdict(setup), "work": work, "name": name, "channels_last": channels_last}
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(order)],
        env={**os.environ, **_ALLOCATOR},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MeasurementFailed(f"{name}: memory cannot be measured: {reason}")
    return float(done.stdout.strip().splitlines()[-1])


def measure(work: str, made: Variant, setup: Setup, *, channels_last: bool = False) -> float:
    """Return the peak in MiB, measured in this process, which should be a fresh one."""
    x, y = sample(setup)
    x = in_format(x, channels_last)
    with ready(work, made, x, y) as run:
        run()
        gc.collect()
        before = _reset_peak()
        run()
        return max(0.0, _peak() - before) / 1024


def peak_cuda_mib(work: str, made: Variant, x: Tensor, y: Tensor) -> float:
    """Return the peak of the memory of tensors on the GPU during a piece of work, above before it.

    It is measured in this process, after a warm-up: torch counts the bytes of its own tensors.

    Args:
        work: One of ``WORKS``.
        made: The variant, on the GPU.
        x: Images [B, C, H, W] there.
        y: Labels [B] there.

    Returns:
        MiB.
    """
    import torch

    with ready(work, made, x, y) as run:
        run()
        gc.collect()
        torch.cuda.synchronize(x.device)
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        run()
        torch.cuda.synchronize(x.device)
        return (torch.cuda.max_memory_allocated(x.device) - before) / 2**20


def _reset_peak() -> float:
    """Reset the peak to the current resident memory where possible; return it in KiB."""
    if not _STATUS.exists():
        return _peak()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return _peak()  # then only memory above the earlier peak is counted
    return _kib("VmRSS")


def _peak() -> float:
    if _STATUS.exists():
        return _kib("VmHWM")
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _kib(field: str) -> float:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        label, _, value = line.partition(":")
        if label == field:
            return float(value.split()[0])
    raise MeasurementFailed(f"{_STATUS} has no {field}")


def _main(order: str) -> None:
    import torch

    torch.set_num_threads(1)
    given = json.loads(order)
    setup = Setup(**given["setup"])
    made = variant(given["name"], build(setup), channels_last=given["channels_last"])
    gc.collect()
    print(measure(given["work"], made, setup, channels_last=given["channels_last"]))


if __name__ == "__main__":
    _main(sys.argv[1])
