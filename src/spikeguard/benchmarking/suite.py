"""The whole benchmark, one case after another; each case is stored when it is finished."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from spikeguard.benchmarking import scaling
from spikeguard.benchmarking import time_to_verdict as verdict
from spikeguard.benchmarking.equality import Unequal, require_equal, tied
from spikeguard.benchmarking.networks import (
    GPU,
    GPU_QUICK,
    NETWORKS,
    QUICK,
    Setup,
    build,
    firing_rates,
    sample,
)
from spikeguard.benchmarking.peak_memory import MeasurementFailed, peak_cuda_mib, peak_mib
from spikeguard.benchmarking.peers import FLOOR, Unavailable
from spikeguard.benchmarking.store import Case, Store, identity
from spikeguard.benchmarking.timing import (
    Effort,
    faster_format,
    in_format,
    interleaved,
    median_seconds,
)
from spikeguard.benchmarking.variants import Variant, default_variant, known_variants, variant
from spikeguard.kernels.selection import use_kernel
from spikeguard.models.snn import SNN
from spikeguard.system.progress import ProgressCallback

__all__ = ["Benchmark", "choose", "require_device"]


_FULL = Effort(least=3, most=7, seconds=10)
_QUICK = Effort(least=2, most=3, seconds=2)
_FULL_GPU = Effort(least=20, most=200, seconds=5)  # a step takes milliseconds
_QUICK_GPU = Effort(least=10, most=50, seconds=1)
_DEVICES = ("cpu", "cuda")
_PROCESSES = 2
_WITHOUT_MEMORY = {"vgg11-t8"}  # slow; vgg11-t4 and the scaling with T show the same
_MEASURED_MEMORY = ("train", "pgd")


def choose(names: Sequence[str], *, quick: bool = False, device: str = "cpu") -> dict[str, Setup]:
    """Return the named networks; all of them if no name is given. On a GPU batches are larger.

    Raises:
        ValueError: If a name is unknown.
    """
    known = (GPU_QUICK if quick else GPU) if device == "cuda" else QUICK if quick else NETWORKS
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"bench: unknown network {name!r}.{hint} Known: {', '.join(known)}.")
    return {name: setup for name, setup in known.items() if not names or name in names}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of some networks.

    Args:
        networks: Networks to compare, by name.
        folder: Folder of the results; a killed run resumes from it.
        quick: Fewer repeats; no scaling, no verdict.
        threads: Threads of torch in this process, >= 1; memory is measured with one.
        names: Names of the variants; None means all that can run on this machine.
        device: "cpu", or "cuda" for the first GPU, where scaling and verdict are left out.

    Raises:
        ValueError: If ``threads`` is below 1, the device is unknown, or there is no GPU.
    """

    networks: dict[str, Setup]
    folder: Path
    quick: bool = False
    threads: int = 1
    names: Sequence[str] | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_device(self.device)
        if self.threads < 1:
            raise ValueError(f"bench: threads must be >= 1, got {self.threads}.")

    def run(
        self,
        progress: ProgressCallback = lambda done, total, what: None,
        finished: Callable[[Store], None] = lambda store: None,
    ) -> Store:
        """Measure all cases that are not stored yet.

        Args:
            progress: Called with (done, total, what).
            finished: Called with the store after each case.

        Raises:
            ValueError: If the folder holds a benchmark of another machine, version or kind.
        """
        own = identity(quick=self.quick, threads=self.threads, device=self.device)
        store = Store(self.folder, own)
        steps = [step for name in self.networks for step in self._network(name, store)]
        if not self.quick and self.device == "cpu":
            steps += self._further(store)
        with _threads(self.threads):
            for place, (what, step) in enumerate(steps):
                progress(place, len(steps), what)
                step()
                finished(store)
        progress(len(steps), len(steps), "done")
        return store

    def _network(self, name: str, store: Store) -> Iterable[tuple[str, Callable[[], object]]]:
        setup, names = self.networks[name], self._names()
        comparison = _Comparison(name, setup, names, self.quick, self.device)
        yield f"{name}, equal logits", partial(comparison.prepare, store)
        for work in ("eval", "pgd", "train"):  # training last: it changes weights and statistics
            yield f"{name}, time of {work}", partial(comparison.time, work, store)
        if name not in _WITHOUT_MEMORY:
            yield f"{name}, memory", partial(comparison.memory, store)

    def _names(self) -> list[str]:
        if self.names is not None:
            return list(self.names)
        return known_variants(device=self.device)

    def _further(self, store: Store) -> Iterable[tuple[str, Callable[[], object]]]:
        kernel = default_variant()
        for name, setup in scaling.SCALED.items():
            for axis, values in scaling.AXES[name].items():
                for value in values:
                    if axis == "threads" and value > self.threads:
                        continue
                    measure = partial(scaling.point, setup, axis, value, kernel)
                    key = f"scaling/{name}/{axis}/{value:g}"
                    yield f"{name}, {axis} {value:g}", partial(store.case, key, measure)
        yield "time to verdict", partial(_verdicts, store)


class _Comparison:
    """All variants of one network; built when the first case needs them."""

    def __init__(self, name: str, setup: Setup, names: Sequence[str], quick: bool, device: str):
        self.name, self.setup, self.names, self.device = name, setup, names, device
        on_gpu = device == "cuda"
        short, long = (_QUICK_GPU, _FULL_GPU) if on_gpu else (_QUICK, _FULL)
        self.effort = short if quick else long
        self._built: list[tuple[Variant, bool]] | None = None

    def prepare(self, store: Store) -> Case:
        """Find the variants that can be measured, and the memory format of each."""
        return store.case(f"equal/{self.name}", self._check)

    def time(self, work: str, store: Store) -> Case:
        """Time all variants on a piece of work."""
        return store.case(f"time/{self.name}/{work}", partial(self._time, work, store))

    def memory(self, store: Store) -> None:
        """Measure the memory of each variant, two at a time: load does not change it."""
        formats = self.prepare(store)["channels_last"]
        if self.device == "cuda":
            self._memory_of_gpu(store, formats)
            return
        self._built = None
        orders = [(work, name) for work in _MEASURED_MEMORY for name in formats]
        keys = [f"memory/{self.name}/{work}/{name}" for work, name in orders]
        left = [
            (key, order)
            for key, order in zip(keys, orders, strict=True)
            if "mib" not in store.cases.get(key, {})
        ]
        pool = ThreadPoolExecutor(_PROCESSES)
        try:
            found = [pool.submit(self._peak, *order, formats[order[1]]) for _, order in left]
            for (key, _), future in zip(left, found, strict=True):
                store.cases.pop(key, None)  # retry failed measurements
                store.case(key, future.result)
        finally:
            pool.shutdown(cancel_futures=True)

    def _memory_of_gpu(self, store: Store, formats: dict[str, bool]) -> None:
        x, y = self._sample()

        def peak(work: str, made: Variant, last: bool) -> Case:
            return {"mib": peak_cuda_mib(work, made, in_format(x, last), y)}

        for work in _MEASURED_MEMORY:
            for made, last in self._variants(formats):
                key = f"memory/{self.name}/{work}/{made.name}"
                store.case(key, partial(peak, work, made, last))

    def _peak(self, work: str, name: str, channels_last: bool) -> Case:
        try:
            return {"mib": peak_mib(self.setup, work, name, channels_last=channels_last)}
        except MeasurementFailed as error:
            return {"refused": {name: f"{self.name}, {work}: {error}"}}

    def _time(self, work: str, store: Store) -> Case:
        formats = self.prepare(store)["channels_last"]
        built = self._variants(formats)
        x, y = self._sample()
        inputs = [in_format(x, channels_last) for _, channels_last in built]
        seconds = interleaved(work, [each for each, _ in built], inputs, y, self.effort)
        return {
            "ms": {name: 1000 * median_seconds(taken) for name, taken in seconds.items()},
            "repeats": min(map(len, seconds.values())),
        }

    def _variants(self, formats: dict[str, bool]) -> list[tuple[Variant, bool]]:
        if self._built is None:
            model = build(self.setup).to(self.device)
            self._built = [
                (variant(name, model, channels_last=last), last) for name, last in formats.items()
            ]
        return self._built

    def _sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = sample(self.setup)
        return x.to(self.device), y.to(self.device)

    def _check(self) -> Case:
        with _full_precision():
            return self._checked()

    def _checked(self) -> Case:
        model = build(self.setup).to(self.device)
        x, y = self._sample()
        with torch.no_grad(), use_kernel("reference"):
            expected = model(x)
        ties = tied(model, x)
        formats: dict[str, bool] = {}
        refused: dict[str, str] = {}
        for name in self.names:
            try:
                last = faster_format(partial(_in_format, name, model), x, y)
                if name != FLOOR:
                    made = _in_format(name, model, last)
                    require_equal(made, expected, ties, in_format(x, last))
                formats[name] = last
            except Unavailable as error:
                refused[name] = str(error)
            except Unequal as error:
                refused[name] = f"{self.name}: {error}"
        rates = firing_rates(model, x)
        return {
            "channels_last": formats,
            "refused": refused,
            "ties": int(ties.sum()),
            "firing": [min(rates), max(rates)],
        }


def _in_format(name: str, model: SNN, channels_last: bool) -> Variant:
    return variant(name, model, channels_last=channels_last)


def _verdicts(store: Store) -> None:
    left = [way for way in verdict.WAYS if f"verdict/{way}" not in store.cases]
    if left:
        model, images = verdict.trained()
        for way in left:
            measure = partial(verdict.time_to_verdict, model, images, way)
            store.case(f"verdict/{way}", measure)


def require_device(device: str) -> None:
    """Reject a device that is unknown or missing.

    Raises:
        ValueError: In both cases.
    """
    if device not in _DEVICES:
        raise ValueError(f"bench: device is one of {', '.join(_DEVICES)}; got {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("bench: device cuda: torch sees no CUDA device; leave it out for the CPU.")


@contextmanager
def _full_precision() -> Iterator[None]:
    """Convolve and multiply in float32 on a GPU: logits of rounded products are not comparable."""
    convolution, product = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolution.allow_tf32, product.allow_tf32
    try:
        convolution.allow_tf32 = product.allow_tf32 = False
        yield
    finally:
        convolution.allow_tf32, product.allow_tf32 = before


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)
