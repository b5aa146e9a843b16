"""Shares of the roofline that a kernel of the membrane reaches: bytes over time over bandwidth.

    python -m gpu_steps.roofline --device cuda --out roofline.json

Bytes are counted, not measured: per element and step a forward pass reads the input and writes the
spike, a backward pass reads the input and the gradient and writes one. The ceilings are measured on
the same machine: a copy in memory, and a float32 matrix product. Floating-point operations are
counted by hand: forward 5 (decay, add, compare, reset twice), backward 16 (the forward again, the
surrogate 5, the chain 6). Cases that the file already has are kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeguard.kernels.dispatch import integrate_and_fire
from spikeguard.kernels.selection import default_kernel
from spikeguard.neurons.surrogate import Triangular

__all__ = ["counted_bytes", "main", "share"]

FORWARD_FLOPS, BACKWARD_FLOPS = 5, 16  # per element and step
_PASSES = {"forward": 2, "backward": 3}  # values moved per element and step
_SIZES = {
    "cuda": {
        "repeats": 10,
        "calls": 10,
        "copy": 1 << 30,
        "product": 8192,
        "shape": (256, 128, 32, 32),
    },
    "cpu": {"repeats": 3, "calls": 1, "copy": 1 << 22, "product": 128, "shape": (2, 4, 8, 8)},
}


def counted_bytes(kind: str, T: int, elements: int, size: int) -> int:
    """Return the bytes that a "forward" or "backward" pass must move, of values of ``size``."""
    return _PASSES[kind] * T * elements * size


def share(moved: float, seconds: float, bandwidth: float) -> float:
    """Return the share of the bandwidth, in bytes a second, that moving the bytes took."""
    return moved / seconds / bandwidth


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Return the median seconds of a piece of work, after two warm-ups.

    On a GPU several calls are queued between two waits, so that starting them costs nothing.
    """
    taken, calls = [], _SIZES[device]["calls"]
    for _ in range(_SIZES[device]["repeats"] + 2):
        _finish(device)
        start = time.perf_counter()
        for _ in range(calls):
            work()
        _finish(device)
        taken.append((time.perf_counter() - start) / calls)
    return statistics.median(taken[2:])


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ceilings(device: str) -> dict[str, float]:
    """Return the measured bandwidth in bytes, and the rate of a float32 product in operations."""
    sizes = _SIZES[device]
    source = torch.rand(sizes["copy"] // 4, device=device)
    target = torch.empty_like(source)
    copied = seconds_of(lambda: target.copy_(source), device)
    n = sizes["product"]
    a, b = (torch.rand(n, n, device=device) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = False
    multiplied = seconds_of(lambda: a @ b, device)
    return {
        "bytes_per_second": 2 * sizes["copy"] / copied,
        "flops_per_second": 2 * n**3 / multiplied,
    }


def measured(device: str, T: int, dtype: torch.dtype, peak: dict[str, float]) -> dict[str, Any]:
    """Return seconds, bytes and shares of a forward and a backward pass of the default kernel."""
    shape = _SIZES[device]["shape"]
    current = torch.randn(T, *shape, device=device).to(dtype).requires_grad_()
    options = {"decay": 0.5, "surrogate": Triangular(), "potentials": False}

    def forward() -> Tensor:
        return integrate_and_fire(current, **options).spikes

    spikes = forward()
    gradient = torch.ones_like(spikes)

    def backward() -> None:
        torch.autograd.grad(spikes, current, gradient, retain_graph=True)

    elements = current[0].numel()
    found: dict[str, Any] = {"T": T, "dtype": str(dtype)[6:], "elements": elements}
    works = {"forward": (forward, FORWARD_FLOPS), "backward": (backward, BACKWARD_FLOPS)}
    for kind, (work, flops) in works.items():
        taken = seconds_of(work, device)
        moved = counted_bytes(kind, T, elements, current.element_size())
        done = flops * T * elements
        found[kind] = {
            "seconds": taken,
            "bytes": moved,
            "share_of_bandwidth": share(moved, taken, peak["bytes_per_second"]),
            "flops": done,
            "share_of_product": share(done, taken, peak["flops_per_second"]),
        }
    return found


def main(words: list[str] | None = None) -> None:
    """Measure all cases that the file does not have yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(words)
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    found.setdefault("kernel", default_kernel(torch.device(given.device)))
    if "ceilings" not in found:
        found["ceilings"] = ceilings(given.device)
    cases = found.setdefault("cases", {})
    for dtype in (torch.float32, torch.bfloat16):
        for T in (2, 4, 8) if given.device == "cuda" else (2,):
            name = f"{str(dtype)[6:]}/T{T}"
            if name not in cases:
                cases[name] = measured(given.device, T, dtype, found["ceilings"])
                given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
