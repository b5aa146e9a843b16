"""Random numbers as arguments: named streams, and one stream for every sample of a batch.

SpikeGuard draws nothing from torch's global generator. There are two sources of random numbers:

* ``stream(seed, "attack", epoch, step)`` returns a ``torch.Generator`` that depends only on the
  seed and the name. A resumed run gets the same streams, and an additional draw from one stream
  does not change the others.
* :class:`SampleStreams` holds one stream for every sample of a batch, so that the numbers of a
  sample do not depend on the other samples, on its index in the batch or on the batch size.

A stochastic module holds a :class:`RandomSource`; ``with randomness(model, source):`` binds the
sources of all modules.

Where several processes share a batch, ``with part_of_batch(rows, total):`` gives each of them the
numbers that one process would draw for its rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.kernels import splitmix
from spikeguard.system.swapping import swapped

__all__ = [
    "RandomSource",
    "Randomness",
    "SampleStreams",
    "integers",
    "key",
    "normal",
    "part_of_batch",
    "random_sources",
    "randomness",
    "stream",
    "torch_seeded",
    "uniform",
]


def key(seed: int, *name: str | int) -> int:
    """Return a 63-bit number that depends only on ``seed`` and ``name`` (BLAKE2b)."""
    parts = (f"str:{part}" if isinstance(part, str) else f"int:{part:d}" for part in name)
    text = "\x1f".join([f"{seed:d}", *parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *name: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator with this name; the same seed and name give the same numbers.

    Example:
        >>> a, b = (torch.rand(1, generator=stream(0, "attack", 3)) for _ in range(2))
        >>> bool(a == b)
        True
    """
    return torch.Generator(device=device).manual_seed(key(seed, *name))


@contextmanager
def torch_seeded(seed: int, *name: str | int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators of the CPU and of a device inside the block, by a name.

    For layers of others that draw from them, such as ``nn.Dropout``. Their states are restored.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        place = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[place])
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(key(seed, *name))
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


@dataclass(frozen=True)
class _Part:
    """Rows of a larger batch: their indices [n] and the size of that batch."""

    rows: Tensor
    total: int

    def require(self, count: int) -> None:
        if count != len(self.rows):
            raise ValueError(
                f"random numbers for {count} samples are drawn where this process has "
                f"{len(self.rows)} of the {self.total} samples of the batch, so several processes "
                "cannot draw what one does; train with one process."
            )


# A variable of the module, because the backward pass of a recomputed layer runs in another thread.
_part: _Part | None = None


@contextmanager
def part_of_batch(rows: Tensor, total: int) -> Iterator[None]:
    """Draw inside the block, for some samples of a batch, what one process draws for all of it.

    A generator draws for the whole batch, and the rows are taken. Per-sample streams that are made
    from a generator are those of the rows. Draws that do not belong to samples, such as a seed, are
    the same for every part.

    Args:
        rows: Indices of the samples in the whole batch [n].
        total: Size of the whole batch.

    Raises:
        ValueError: At a draw, if its sample axis has another length than n.

    Example:
        >>> whole = uniform(stream(0, "a"), (4, 2), dim=0)
        >>> with part_of_batch(torch.tensor([2, 3]), 4):
        ...     part = uniform(stream(0, "a"), (2, 2), dim=0)
        >>> bool((whole[2:] == part).all())
        True
    """
    global _part
    before, _part = _part, _Part(rows, total)
    try:
        yield
    finally:
        _part = before


class SampleStreams:
    """One random stream for every sample of a batch.

    Sample ``i`` draws the splitmix64 sequence identified by (seed, ids[i]). The generator is
    counter-based, so a sample gets the same numbers in any batch, in any order and on any device
    (``normal`` up to the device's rounding of log and cos).

    Args:
        seed: Any integer; a seed and an id identify a stream.
        ids: One integer per sample [B], for example its index in the data set.

    Raises:
        ValueError: If ids is not [B]; at a draw, if the length of the sample axis is not B.

    Example:
        >>> both, alone = SampleStreams(0, [7, 9]), SampleStreams(0, [9])
        >>> bool((both.uniform((2, 3))[1] == alone.uniform((1, 3))[0]).all())
        True

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """

    def __init__(self, seed: int, ids: Sequence[int] | Tensor):
        self.ids = torch.as_tensor(ids, dtype=torch.int64, device="cpu")
        if self.ids.ndim != 1:
            raise ValueError(
                f"SampleStreams: ids is one number a sample [B], got {list(self.ids.shape)}."
            )
        self.seed = seed
        self._state = splitmix.mix_(self.ids * splitmix.GOLDEN + (key(seed, "sample") | 1))
        self._drawn = 0

    @classmethod
    def of(cls, source: Randomness | None, batch: int) -> SampleStreams:
        """Convert any source to per-sample streams.

        Streams are returned unchanged. From a generator one number is drawn, the seed of new
        streams with ids 0 to batch - 1 (in a ``part_of_batch`` those of its rows); for None the
        seed is 0, the same for every batch.
        """
        if isinstance(source, SampleStreams):
            if len(source) != batch:
                raise ValueError(
                    f"SampleStreams: made for {len(source)} samples, got a batch of {batch}."
                )
            return source
        ids = torch.arange(batch, device="cpu")
        if _part is not None:
            _part.require(batch)
            ids = _part.rows
        if source is None:
            return cls(0, ids)
        seed = torch.randint(2**62, (1,), generator=source, device=source.device).item()
        return cls(int(seed), ids)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Tensor) -> SampleStreams:
        """Return the streams of some of the samples, continued from their current position."""
        part = object.__new__(SampleStreams)
        index = index.cpu()
        part.ids, part.seed = self.ids[index], self.seed
        part._state, part._drawn = self._state[index], self._drawn
        return part

    def fork(self, *name: str | int) -> SampleStreams:
        """Return new streams for the same samples under another name.

        They do not depend on earlier draws: the same name gives the same numbers again.
        """
        return SampleStreams(key(self.seed, *name), self.ids)

    def names(self) -> Tensor:
        """Return an integer for each sample [B] that identifies its stream; nothing is drawn."""
        return self._state.clone()

    def bits(self, shape: Sequence[int], *, dim: int, device: torch.device | str = "cpu") -> Tensor:
        """Return 64 random bits per element; axis ``dim`` is the sample axis."""
        return self._drawn_by(splitmix.bits, shape, dim, device)

    def uniform(
        self, shape: Sequence[int], *, dim: int = 0, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return float32 numbers in [0, 1) on a grid of 2^-24."""
        return self._drawn_by(splitmix.uniform, shape, dim, device)

    def normal(
        self,
        shape: Sequence[int],
        *,
        dim: int = 0,
        device: torch.device | str = "cpu",
        out: Tensor | None = None,
    ) -> Tensor:
        """Return float32 numbers from N(0, 1), all within [-5.8, 5.8].

        If ``out`` is given, a tensor of this shape, the numbers are written to it; its memory
        layout does not change them.
        """
        before, after = self._row(shape, dim)
        if out is None:
            drawn = torch.empty(len(self), *before, *after, dtype=torch.float32, device=device)
            out = drawn.movedim(0, len(before))
        first = self._advance((math.prod(before) * math.prod(after) + 1) // 2)  # two from 64 bits
        splitmix.normal_(out.movedim(len(before), 0), self._state.to(device), first)
        return out

    def _drawn_by(
        self,
        numbers: Callable[[Tensor, int, int], Tensor],
        shape: Sequence[int],
        dim: int,
        device: torch.device | str,
    ) -> Tensor:
        """Return one number of every stream for each element of a sample."""
        before, after = self._row(shape, dim)
        count = math.prod(before) * math.prod(after)
        rows = numbers(self._state.to(device), self._advance(count), count)
        return rows.view(len(self), *before, *after).movedim(0, len(before)).contiguous()

    def _row(self, shape: Sequence[int], dim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the axes of a shape before and after its sample axis."""
        if not -len(shape) <= dim < len(shape) or shape[dim] != len(self):
            raise ValueError(
                f"SampleStreams: axis {dim} is the sample axis and must have length {len(self)}, "
                f"got shape {list(shape)}."
            )
        dim %= len(shape)
        return tuple(shape[:dim]), tuple(shape[dim + 1 :])

    def _advance(self, count: int) -> int:
        """Take ``count`` numbers of every stream; return the index of the first."""
        self._drawn += count
        return self._drawn - count


Randomness = torch.Generator | SampleStreams


class RandomSource:
    """The random numbers of a stochastic module: the source bound by ``randomness``, or its own."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.bound: Randomness | None = None
        self._own: dict[torch.device, torch.Generator] = {}

    def current(self, device: torch.device) -> Randomness:
        """Return the source to draw from on ``device``."""
        if self.bound is not None:
            return self.bound
        if device not in self._own:
            self._own[device] = stream(self.seed, "own", device=device)
        return self._own[device]

    def normal_(self, out: Tensor, *, dim: int) -> Tensor:
        """Fill a tensor with draws from N(0, 1), which do not depend on its memory layout.

        ``dim`` is its sample axis.
        """
        source = self.current(out.device)
        if isinstance(source, SampleStreams):
            return source.normal(out.shape, dim=dim, device=out.device, out=out)
        return out.copy_(normal(source, out.shape, dim=dim, device=out.device))

    def normal(self, like: Tensor, *, dim: int) -> Tensor:
        """Draw N(0, 1) shaped like ``like``; ``dim`` is its sample axis."""
        return normal(self.current(like.device), like.shape, dim=dim, device=like.device)

    def uniform(self, like: Tensor, *, dim: int) -> Tensor:
        """Draw U[0, 1) shaped like ``like``; ``dim`` is its sample axis."""
        return uniform(self.current(like.device), like.shape, dim=dim, device=like.device)

    def __deepcopy__(self, memo: dict[int, object]) -> RandomSource:
        return RandomSource(self.seed)


def normal(
    source: Randomness, shape: Sequence[int], *, dim: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw N(0, 1) from either kind of source; ``dim`` is the sample axis."""
    if isinstance(source, SampleStreams):
        return source.normal(shape, dim=dim, device=device)
    whole = _whole(shape, dim)
    drawn = torch.randn(whole, generator=source, device=source.device, dtype=torch.float32)
    return _rows(drawn, dim, device)


def uniform(
    source: Randomness, shape: Sequence[int], *, dim: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw U[0, 1) from either kind of source; ``dim`` is the sample axis."""
    if isinstance(source, SampleStreams):
        return source.uniform(shape, dim=dim, device=device)
    whole = _whole(shape, dim)
    drawn = torch.rand(whole, generator=source, device=source.device, dtype=torch.float32)
    return _rows(drawn, dim, device)


def integers(
    source: torch.Generator, high: int, count: int, *, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw one whole number in 0 .. high - 1 for each of ``count`` samples."""
    shape = _whole((count,), 0)
    return _rows(torch.randint(high, shape, generator=source, device=source.device), 0, device)


def _whole(shape: Sequence[int], dim: int) -> tuple[int, ...]:
    """Return the shape of a draw for the whole batch; axis ``dim`` is the sample axis."""
    if _part is None:
        return tuple(shape)
    _part.require(shape[dim])
    dim %= len(shape)
    return (*shape[:dim], _part.total, *shape[dim + 1 :])


def _rows(drawn: Tensor, dim: int, device: torch.device | str) -> Tensor:
    """Return this process's samples of a draw for the whole batch."""
    if _part is not None:
        drawn = drawn.index_select(dim, _part.rows.to(drawn.device))
    return drawn.to(device)


@contextmanager
def randomness(model: nn.Module, source: Randomness) -> Iterator[None]:
    """Make every stochastic module of ``model`` draw from ``source`` inside the block.

    Args:
        model: Any module. Sub-modules with a RandomSource as attribute ``random`` are bound.
        source: A generator, or SampleStreams for numbers that do not depend on the batch.
    """
    with swapped(random_sources(model), "bound", source):
        yield


def random_sources(model: nn.Module) -> list[RandomSource]:
    """Return the sources of all stochastic modules, in network order."""
    held = (getattr(module, "random", None) for module in model.modules())
    return [source for source in held if isinstance(source, RandomSource)]
