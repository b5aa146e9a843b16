"""Patches of Square Attack, drawn per sample without a loop over samples.

Images are [B, C, H, W]. The side of a patch is one number per sample; a patch larger than the image
is cut to its height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.rng import SampleStreams

__all__ = ["moved_length", "pyramids", "side", "signed_square", "stripes", "tiles"]

_TILES = 5  # tiles along height and along width in the start under L2


def stripes(image: Tensor, streams: SampleStreams) -> Tensor:
    """Return vertical stripes of random sign, each one pixel wide [B, C, H, W]."""
    batch, channels, _, width = image.shape
    uniform = streams.uniform((batch, channels, 1, width), device=image.device)
    return _signs(uniform, image).expand_as(image)


def side(share: Tensor, image: Tensor) -> Tensor:
    """Return the side of a square that covers a fraction ``share`` of the image, >= 1 [B]."""
    return (share * image.shape[2] * image.shape[3]).sqrt().round().clamp(min=1)


def signed_square(image: Tensor, share: Tensor, streams: SampleStreams) -> tuple[Tensor, Tensor]:
    """Draw a square [B, H, W], true inside, and a sign for each of its channels [B, C, 1, 1]."""
    batch, channels, height, width = image.shape
    drawn = streams.uniform((batch, 2 + channels), device=image.device)
    long = side(share, image)
    lines, columns = _place(drawn[:, 0], long, height), _place(drawn[:, 1], long, width)
    return _inside(lines, columns, long), _signs(drawn[:, 2:], image)[:, :, None, None]


def moved_length(
    image: Tensor, best: Tensor, share: Tensor, eps: float, streams: SampleStreams
) -> Tensor:
    r"""Move the perturbation's length from one window into another, shaped as two pyramids.

    .. math::
        \nu_{W_1} \leftarrow \sqrt{\lVert\nu_{W_1 \cup W_2}\rVert^2 + (\epsilon^2 -
        \lVert\nu\rVert^2) / C}\;\frac{\nu'}{\lVert\nu'\rVert},\quad \nu' = \pm\eta +
        \frac{\nu_{W_1}}{\lVert\nu_{W_1}\rVert},\qquad \nu_{W_2 \setminus W_1} \leftarrow 0

    per channel, with one random sign each; eta has length 1.

    Returns:
        The changed points [B, C, H, W], not yet clipped to the box.
    """
    batch, channels, height, width = image.shape
    drawn = streams.uniform((batch, 5 + channels), device=image.device)
    long = side(share, image).clamp(min=3)
    long = long + (long % 2 == 0)
    lines, columns = _place(drawn[:, 0], long, height), _place(drawn[:, 1], long, width)
    here = _inside(lines, columns, long)
    other = _place(drawn[:, 2], long, height), _place(drawn[:, 3], long, width)
    both = (here | _inside(*other, long))[:, None]
    tall, wide = long.clamp(max=height), long.clamp(max=width)
    shape = pyramids(lines, columns, tall, wide, drawn[:, 4] < 0.5) * here
    shape = _unit(shape[:, None].to(image.dtype), (1, 2, 3))
    here = here[:, None]

    delta = best - image
    unused = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp(min=0)
    free = ((delta * both).square().sum((2, 3), keepdim=True) + unused / channels).sqrt()
    signs = _signs(drawn[:, 5:], image)[:, :, None, None]
    patch = _unit(signs * shape + _unit(delta * here, (2, 3)), (2, 3)) * free
    return image + torch.where(here, patch, torch.where(both, 0, delta))


def tiles(image: Tensor, streams: SampleStreams) -> Tensor:
    """Cover the image with pairs of pyramids of random sign; length 1 [B, C, H, W]."""
    batch, channels, height, width = image.shape
    tall, wide = max(height // _TILES, 1), max(width // _TILES, 1)
    down, right = -(-height // tall), -(-width // wide)
    upright = streams.uniform((batch, 1), device=image.device)[:, 0] < 0.5
    drawn = _signs(streams.uniform((batch, channels, down, right), device=image.device), image)
    signs = drawn.repeat_interleave(tall, 2).repeat_interleave(wide, 3)[:, :, :height, :width]
    lines = torch.arange(height, device=image.device).expand(batch, -1) % tall
    columns = torch.arange(width, device=image.device).expand(batch, -1) % wide
    sizes = torch.tensor([[tall], [wide]], device=image.device).expand(2, batch)
    shape = pyramids(lines, columns, sizes[0], sizes[1], upright)
    return _unit(signs * shape[:, None].to(image.dtype), (1, 2, 3))


def pyramids(lines: Tensor, columns: Tensor, tall: Tensor, wide: Tensor, upright: Tensor) -> Tensor:
    r"""Return a pair of stepped pyramids, one up and one down [B, H, W].

    A pixel at Chebyshev distance d from the centre of its half has height
    \(\sum_{k=d}^{n} (k+1)^{-2}\), where n is the distance of the half's farthest pixel.

    Args:
        lines: Index of each image line relative to the pair's first line [B, H].
        columns: Index of each image column relative to the pair's first column [B, W].
        tall: Height of the pair [B].
        wide: Width of the pair [B].
        upright: Whether one half is above the other instead of beside it [B]; a pair of one line or
            one column is divided in the only possible way.
    """
    r, c = lines[:, :, None].long(), columns[:, None, :].long()
    tall, wide = tall.long()[:, None, None], wide.long()[:, None, None]
    upright = ((upright[:, None, None]) & (tall > 1)) | (wide == 1)
    half_tall, half_wide = torch.where(upright, tall // 2, 0), torch.where(upright, 0, wide // 2)
    second = torch.where(upright, r >= half_tall, c >= half_wide)
    half_tall = torch.where(upright, torch.where(second, tall - half_tall, half_tall), tall)
    half_wide = torch.where(upright, wide, torch.where(second, wide - half_wide, half_wide))
    r = r - torch.where(upright & second, tall - half_tall, 0)
    c = c - torch.where(~upright & second, wide - half_wide, 0)
    steps = torch.maximum(half_tall // 2, half_wide // 2) + 1
    far = torch.maximum((r - half_tall // 2).abs(), (c - half_wide // 2).abs())
    longest = max(lines.shape[1], columns.shape[1]) + 1
    heights = torch.arange(1, longest + 1, dtype=torch.float64, device=lines.device) ** -2
    below = torch.cat([heights.new_zeros(1), heights.cumsum(0)])  # sums of the first n
    rise = below[steps] - below[torch.minimum(far, steps)]
    return torch.where(second, -rise, rise).to(torch.float32)


def _signs(uniform: Tensor, like: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0).to(like.dtype)


def _place(uniform: Tensor, long: Tensor, length: int) -> Tensor:
    """Return the index of each line relative to the start of a random window [B, length]."""
    begin = (uniform * (length - long.clamp(max=length) + 1)).floor()
    return torch.arange(length, device=long.device) - begin[:, None]


def _inside(lines: Tensor, columns: Tensor, long: Tensor) -> Tensor:
    """Return a mask of the pixels in a window [B, H, W]."""
    down = (lines >= 0) & (lines < long[:, None])
    right = (columns >= 0) & (columns < long[:, None])
    return down[:, :, None] & right[:, None, :]


def _unit(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Scale to length 1 over some dimensions; zero stays zero."""
    length = x.square().sum(dims, keepdim=True).sqrt()
    return x / torch.where(length > 0, length, 1)
