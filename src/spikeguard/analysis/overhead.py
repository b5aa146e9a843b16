"""Analysis ``overhead``: time of a network beside the same network with plain LIF neurons."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from spikeguard.analysis.activity import OF
from spikeguard.analysis.base import Batch, Passes, Section, batches, settings_of
from spikeguard.analysis.intervals import median_interval
from spikeguard.analysis.lif_twin import plain_twin
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Rule, Series, Table
from spikeguard.analysis.texts import images_of, setting_of, span
from spikeguard.attacks.losses import cross_entropy
from spikeguard.data.images import Data
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.neurons.base import Neuron
from spikeguard.rng import randomness
from spikeguard.system.progress import ProgressCallback

__all__ = ["Overhead", "time_ratios"]

_PHASES = ("inference", "training step")


@dataclass(frozen=True)
class Overhead:
    """Time inference and a training step on cross-entropy, each against the plain network.

    The plain network is a copy whose neurons are LIF with the same threshold, reset and surrogate.
    Both run in turns in one process, so that a change of the machine's speed cancels. A training
    step is a forward pass in train mode and a backward pass to the weights; terms that the defence
    adds to the loss, and attacks inside training, are not part of it.

    Args:
        limit: Images of one batch, >= 1.
        rounds: Pairs of measurements, >= 6.

    Raises:
        ValueError: If rounds is below 6, where no 95 % interval of the median exists.
    """

    limit: int = 32
    rounds: int = 15

    name: ClassVar[str] = "overhead"
    title: ClassVar[str] = "Time beside the plain network"
    section: ClassVar[Section] = "activity"
    source: ClassVar[str] = (
        'TGO (arXiv:2602.20548), abstract: "no additional computational overhead during inference"'
    )
    about: ClassVar[str] = (
        "Time of the network divided by that of the same network with plain LIF neurons, measured "
        "in turns. 1.4 means 40 % more time. Times differ from run to run."
    )
    exempt_from: ClassVar[frozenset[str]] = frozenset({"same_bits"})

    def __post_init__(self) -> None:
        if self.rounds < 6:
            raise ValueError(f"overhead: rounds is a number >= 6, got {self.rounds}.")

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return ratios and times along "phase"; the batch is the ``limit`` images."""
        (batch,) = batches(model, data, limit=self.limit, batch_size=max(1, self.limit))
        subject, plain = copy.deepcopy(model), plain_twin(model)
        kinds = list(dict.fromkeys(type(m).__name__ for m in model.modules() if _is_spiking(m)))
        ratios, seconds = [], []
        for place, run in enumerate((_inference, _training_step)):
            pair = [_call(run, each, batch, seed) for each in (subject, plain)]
            times = time_ratios(*pair, rounds=self.rounds)
            ratios.append(median_interval(times[:, 0] / times[:, 1]))
            seconds.append(np.median(times, axis=0))
            if progress is not None:
                progress(place + 1, len(_PHASES), "overhead")
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            len(batch.x),
            {
                "phase": list(_PHASES),
                "of": ["median", *OF[1:]],
                "network": ["measured", "plain"],
                "kind": kinds,
            },
            ratio=(
                ratios,
                ["phase", "of"],
                "1",
                "time by that of the plain network, 95 % interval",
            ),
            seconds=(seconds, ["phase", "network"], "s", "median time of the batch"),
            neurons=(kinds, ["kind"], "", "classes of its neurons"),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return two passes of each kind a round, and one round before."""
        count = 2 * (self.rounds + 1) * min(samples, self.limit)
        return Passes(forward=count, gradients=count)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the ratios of inference."""
        ratios = {label: _ratio(m, "inference") for label, m in found.items()}
        return "Inference time by that of the plain network: " + span(ratios, "{:.2f}".format)

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return one row for each network."""
        rows = []
        for label, m in found.items():
            cells = []
            for phase in _PHASES:
                middle, low, high = (m.number("ratio", phase=phase, of=end) for end in m.axes["of"])
                cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
                cells.append(f"{1e3 * m.number('seconds', phase=phase, network='measured'):.1f}")
            rows.append((label, ", ".join(m["neurons"].tolist()), *cells))
        caption = (
            f"Medians of {setting_of(found, 'rounds')} pairs on {images_of(found)} images with "
            "95 % intervals of the median. A training step is forward and backward on "
            "cross-entropy; the defence's own terms and attacks are not part of it."
        )
        head = ("Network", "Neurons", "Inference ratio", "Inference (ms)")
        return Table((*head, "Training step ratio", "Training step (ms)"), rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return the ratios of all networks."""
        marks = []
        for label, m in found.items():
            ends = [[m.number("ratio", phase=p, of=o) for p in _PHASES] for o in m.axes["of"]]
            marks.append(Series(list(_PHASES), *_bars(label, ends), kind="bars"))
        return [
            Plot(
                "ratio",
                "Time beside the plain network",
                Overhead.result(found),
                marks,
                y_title="Time / plain network",
                rules=[Rule(1.0, axis="y")],
            )
        ]


def time_ratios(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    rounds: int,
    shortest: float = 0.02,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Time two functions in turns, after one call of each; their order alternates.

    Without a GPU the time is that of the processor, so that other programs on the machine count
    less. A function is called several times in a measurement if a call is short.

    Args:
        first: A function.
        second: The other one.
        rounds: Measurements of each.
        shortest: Least length of a measurement of the first function, in seconds.

    Returns:
        Seconds of one call, [rounds, 2].
    """
    calls = (first, second)
    for call in calls:
        call()
    repeats = math.ceil(shortest / max(1e-6, _seconds(first, 1)))
    times = np.zeros((rounds, 2))
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            times[number, which] = _seconds(calls[which], repeats)
    return times


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the mean time of a call."""
    if not torch.cuda.is_available():
        start = time.process_time()
        for _ in range(repeats):
            call()
        return (time.process_time() - start) / repeats
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def _is_spiking(module: nn.Module) -> bool:
    return isinstance(module, Neuron)


def _call(
    run: Callable[[nn.Module, Batch], None], model: nn.Module, batch: Batch, seed: int
) -> Callable[[], None]:
    """Return a call of a network on a batch with the same noise every time."""
    x = in_dtype_of(model, batch.x)
    shown = Batch(batch.index, x, batch.y)

    def called() -> None:
        with randomness(model, batch.streams(seed, "noise")):
            run(model, shown)

    return called


def _inference(model: nn.Module, batch: Batch) -> None:
    model.eval()
    with torch.no_grad():
        model(batch.x)


def _training_step(model: nn.Module, batch: Batch) -> None:
    model.train()
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        cross_entropy(model(batch.x), batch.y).mean().backward()  # type: ignore[no-untyped-call]


def _ratio(m: Measurement, phase: str) -> float:
    return m.number("ratio", phase=phase, of="median")


def _bars(
    label: str, ends: list[list[float]]
) -> tuple[list[float], str, str, list[float], list[float]]:
    middle, low, high = ends
    return middle, label, label, low, high
