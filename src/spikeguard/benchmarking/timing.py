"""Timing of variants: interleaved repeats in one process, and their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeguard.benchmarking.variants import Variant, ready

__all__ = ["Effort", "faster_format", "interleaved", "median_seconds"]

Clock = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """Number of repeats of a measurement.

    Args:
        least: Minimum of repeats, >= 1.
        most: Maximum of repeats, >= least.
        seconds: No further repeat starts after this time.
    """

    least: int
    most: int
    seconds: float


def interleaved(
    work: str,
    variants: Sequence[Variant],
    inputs: Sequence[Tensor],
    y: Tensor,
    effort: Effort,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each repeat for each variant; the variants take turns.

    A slow phase of the machine therefore affects all of them. Each variant has two warm-ups, on a
    quarter of the images and on all: SpikingJelly compiles code in its first calls.

    Args:
        work: One of ``WORKS``.
        variants: The variants to measure.
        inputs: Each variant's images [B, C, H, W], in its memory format.
        y: Labels [B].
        effort: Number of repeats.
        clock: Function that returns the time in seconds.
    """
    seconds: dict[str, list[float]] = {each.name: [] for each in variants}
    pairs = list(zip(variants, inputs, strict=True))
    for each, x in pairs:
        for images in (x[: _quarter(x)], x):
            _once(work, each, images, y[: len(images)], clock)
    start = clock()
    for repeat in range(effort.most):
        if repeat >= effort.least and clock() - start > effort.seconds:
            break
        for each, x in pairs:
            seconds[each.name].append(_once(work, each, x, y, clock))
    return seconds


def faster_format(
    build: Callable[[bool], Variant], x: Tensor, y: Tensor, clock: Clock = time.perf_counter
) -> bool:
    """Return whether a variant attacks a quarter of the images faster in ``channels_last``.

    Each format gets two tries.

    Args:
        build: Returns the variant, in ``channels_last`` or not.
        x: Images [B, C, H, W].
        y: Labels [B].
        clock: Function that returns the time in seconds.
    """
    found = []
    for channels_last in (False, True):
        images = in_format(x[: _quarter(x)], channels_last)
        made = build(channels_last)
        found.append(min(_once("pgd", made, images, y[: len(images)], clock) for _ in range(2)))
    return found[1] < found[0]


def in_format(x: Tensor, channels_last: bool) -> Tensor:
    """Return images in the memory format."""
    return x.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def median_seconds(seconds: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(seconds)


def _quarter(x: Tensor) -> int:
    return max(1, len(x) // 4)


def _once(work: str, variant: Variant, x: Tensor, y: Tensor, clock: Clock) -> float:
    with ready(work, variant, x, y) as run:
        _finish(x)
        start = clock()
        run()
        _finish(x)
        return clock() - start


def _finish(x: Tensor) -> None:
    """Wait for the work that a GPU has been given."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
