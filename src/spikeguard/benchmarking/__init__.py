"""Benchmark: time and memory of SpikeGuard beside other ways to run the same network.

All variants have the same weights and, in evaluation mode, the same logits; a variant whose logits
differ is left out. Times are medians of interleaved repeats in one process. Each memory number is
measured in a fresh process.
"""

from __future__ import annotations

from spikeguard.benchmarking.networks import NETWORKS, QUICK, Setup
from spikeguard.benchmarking.store import RESULTS, Store
from spikeguard.benchmarking.suite import Benchmark, choose

__all__ = ["NETWORKS", "QUICK", "RESULTS", "Benchmark", "Setup", "Store", "choose"]
