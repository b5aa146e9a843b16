"""The numbers of many streams of splitmix64: bits, uniform and normal, one row for every stream.

The n-th number of a stream is a function of its state and of n alone, so rows can be computed in
any order. The compiled library turns the integers into uniform numbers where it is available, with
the bits of the definition in torch; logarithm, sine and cosine are always torch's.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeguard.kernels.cpu import random_numbers as compiled

__all__ = ["GOLDEN", "bits", "mix_", "normal_", "uniform"]

GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_MIX_2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
_PIECE = 1 << 14  # numbers computed at once; they fit a core's cache


def bits(state: Tensor, first: int, count: int) -> Tensor:
    """Return 64 random bits for the numbers ``first`` to ``first + count - 1`` of every stream.

    Args:
        state: The streams' states [B], int64.
        first: Index of the first number, >= 0.
        count: Numbers of each stream, >= 0.
    """
    counter = torch.arange(first + 1, first + count + 1, device=state.device).mul_(GOLDEN)
    return mix_(counter + state[:, None])


def uniform(state: Tensor, first: int, count: int) -> Tensor:
    """Return float32 numbers in [0, 1) on a grid of 2^-24 [B, count]; arguments as for ``bits``."""
    if compiled.available(state.device):
        return compiled.uniform(state, first, count)
    return _unit(bits(state, first, count) >> 40)


def normal_(out: Tensor, state: Tensor, first: int) -> Tensor:
    """Fill ``out`` [B, ...] with float32 numbers from N(0, 1); its memory layout may be any.

    64 bits give a Box-Muller pair: the first half of a row's numbers are the cosines, the second
    half the sines, so a row takes half as many numbers of its stream as it has elements, rounded
    up. They are computed in pieces that stay in the cache, nearly as fast as by torch.randn.
    """
    count = math.prod(out.shape[1:])
    pairs = (count + 1) // 2
    piece = max(1, _PIECE // max(1, pairs)) if out.device.type == "cpu" else len(out)
    places, starts = torch.split(out, piece), torch.split(state, piece)
    for place, start in zip(places, starts, strict=True):
        complement, angle = _pairs(start, first, pairs)
        radius = complement.log_().mul_(-2).sqrt_()
        both = torch.empty(len(start), 2 * pairs, dtype=torch.float32, device=out.device)
        torch.mul(radius, torch.cos(angle), out=both[:, :pairs])
        torch.mul(radius, angle.sin_(), out=both[:, pairs:])
        place.copy_(both[:, :count].view(place.shape))
    return out


def mix_(z: Tensor) -> Tensor:
    """Mix 64 bits in place (the output function of splitmix64); int64 wraps as unsigned does."""
    shifted = torch.empty_like(z)
    for by, factor in ((30, _MIX_1), (27, _MIX_2), (31, None)):
        torch.bitwise_right_shift(z, by, out=shifted)
        z ^= shifted.bitwise_and_((1 << (64 - by)) - 1)  # a logical shift
        if factor is not None:
            z *= factor
    return z


def _pairs(state: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Return 1 - u in (0, 1] and 2 pi w, u and w uniform in [0, 1), both [B, count]."""
    if compiled.available(state.device):
        return compiled.pairs(state, first, count)
    drawn = bits(state, first, count)
    complement = _unit(drawn >> 40).mul_(-1).add_(1)
    return complement, _unit(drawn.bitwise_right_shift_(8)).mul_(2 * math.pi)


def _unit(drawn: Tensor) -> Tensor:
    """Map the low 24 bits to [0, 1)."""
    return (drawn & 0xFFFFFF).to(torch.float32).mul_(2.0**-24)
