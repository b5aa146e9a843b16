"""Growth of SpikeGuard's time and memory with T, batch, width and threads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from spikeguard.benchmarking.networks import Setup, build, sample
from spikeguard.benchmarking.peak_memory import peak_mib
from spikeguard.benchmarking.timing import Effort, interleaved, median_seconds
from spikeguard.benchmarking.variants import variant

__all__ = ["AXES", "HEAD", "SCALED", "point", "rows", "slope"]

SCALED: dict[str, Setup] = {
    "vgg5": Setup("vgg5", 4, 8, 0.25),
    "cnn": Setup("cnn", 4, 16, 0.5),
}
_T = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
AXES: dict[str, dict[str, tuple[float, ...]]] = {
    "vgg5": {"T": _T, "batch": (4, 8, 16, 32), "width": (0.125, 0.25, 0.5), "threads": (1, 2)},
    "cnn": {"T": _T},
}
HEAD = ("network", "axis", "value", "train ms", "pgd ms", "pgd MiB", "slope train / pgd / MiB")
_FIELDS = ("train", "pgd", "mib")
_EFFORT = Effort(least=3, most=7, seconds=0.5)

Measured = dict[str, float]


def point(setup: Setup, axis: str, value: float, kernel: str) -> Measured:
    """Measure one point of an axis.

    Args:
        setup: The network at its usual size.
        axis: Name of one of its axes in ``AXES``.
        value: Value on the axis.
        kernel: Name of the variant, "spikeguard/KERNEL".

    Returns:
        Median milliseconds "train" and "pgd"; peak "mib" of an attack step, unless the axis is
        threads.
    """
    threads = torch.get_num_threads()
    if axis != "threads":
        changed = asdict(setup) | {axis: value if axis == "width" else int(value)}
        setup = Setup(**changed)
    try:
        if axis == "threads":
            torch.set_num_threads(int(value))
        x, y = sample(setup)
        made = variant(kernel, build(setup))
        found = {
            work: 1000 * median_seconds(interleaved(work, [made], [x], y, _EFFORT)[kernel])
            for work in ("train", "pgd")
        }
    finally:
        torch.set_num_threads(threads)
    if axis != "threads":
        found["mib"] = peak_mib(setup, "pgd", kernel)
    return found


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the least-squares slope of log y against log x; 1 is proportional."""
    a, b = ([math.log(v) for v in values] for values in (x, y))
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    above = sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
    return above / sum((p - mean_a) ** 2 for p in a)


def rows(cases: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the text of the table; the slope of an axis is in its last line."""
    lines = []
    for network in SCALED:
        for axis, values in AXES[network].items():
            found = {v: c for v in values if (c := cases.get(f"scaling/{network}/{axis}/{v:g}"))}
            for value, case in found.items():
                cells = [f"{case[name]:.3g}" if name in case else "" for name in _FIELDS]
                lines.append((network, axis, f"{value:g}", *cells, ""))
            if len(found) > 1:
                lines[-1] = (*lines[-1][:-1], _slopes(found))
    return lines


def _slopes(found: Mapping[float, Mapping[str, float]]) -> str:
    slopes = []
    for name in _FIELDS:
        values = [case.get(name, 0.0) for case in found.values()]
        if min(values) > 0:
            slopes.append(f"{slope(list(found), values):.2f}")
    return " / ".join(slopes)
