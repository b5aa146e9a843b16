"""The comparison of ``spikeguard bench --quick``, on networks small enough for a dry run if asked.

python -m gpu_steps.bench --device cuda --out FOLDER [--only spikingjelly] [--tiny]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from spikeguard.benchmarking import suite
from spikeguard.benchmarking.networks import Setup
from spikeguard.benchmarking.page import write_page
from spikeguard.benchmarking.suite import Benchmark, choose
from spikeguard.benchmarking.timing import Effort

__all__ = ["main"]

_TINY = {"vgg5": Setup("vgg5", 2, 2, 0.03125)}


def main(words: list[str] | None = None) -> None:
    """Run or continue the benchmark in the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", action="append")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(words)
    networks = _TINY if given.tiny else choose([], quick=True, device=given.device)
    if given.tiny:
        suite._QUICK = Effort(least=1, most=1, seconds=0)
        suite._MEASURED_MEMORY = ()  # each number is a process of its own
    threads = 1 if given.tiny else os.cpu_count() or 1
    benchmark = Benchmark(
        networks, given.out, quick=True, threads=threads, names=given.only, device=given.device
    )
    benchmark.run(
        lambda done, total, what: print(f"{done}/{total} {what}", flush=True),
        lambda store: write_page(store, given.out),
    )


if __name__ == "__main__":
    main()
