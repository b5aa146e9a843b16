"""Pearson correlation of spike trains: for one image, averaged over images, and its moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeguard.rng import SampleStreams

__all__ = ["CONVENTIONS", "MeanCorrelation", "Moments", "correlations", "moments", "shuffled"]

CONVENTIONS = ("left out", "zero")
"""The two conventions for the correlation with a constant train, which is 0/0."""

_BLOCK = 64  # images whose matrices are added at once; fixed, so that batches change no bit


def correlations(trains: Tensor) -> Tensor:
    r"""Return the Pearson correlation matrix of spike trains.

    .. math::
        r_{ij} = \frac{\sum_t (s_i[t] - \bar s_i)(s_j[t] - \bar s_j)}
        {\sqrt{\sum_t (s_i[t] - \bar s_i)^2} \sqrt{\sum_t (s_j[t] - \bar s_j)^2}}

    Args:
        trains: Spikes [T, N] of one image.

    Returns:
        The matrix [N, N] in float64; NaN in the rows and columns of constant trains.

    Example:
        >>> correlations(torch.tensor([[1, 1, 0], [0, 0, 1]])).round().tolist()
        [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    """
    z, varies = _standardised(trains[None])
    return torch.where(varies[0] & varies[0][:, None], z[0].T @ z[0], torch.nan)


def shuffled(trains: Tensor, streams: SampleStreams) -> Tensor:
    """Permute the steps of every train by itself: the null model, which keeps every rate.

    The expected correlation of two trains is 0 then, whatever their rates are.

    Args:
        trains: Spikes [B, T, N].
        streams: One random stream an image.
    """
    order = streams.uniform(trains.shape, device=trains.device).argsort(1)
    return trains.gather(1, order)


@dataclass(frozen=True)
class Moments:
    """Statistics of correlations, as in Table IV of the operational-space paper.

    Attributes:
        skewness: Third standardised moment.
        kurtosis: Fourth standardised moment minus 3: 0 for a normal distribution.
        p99: 99th percentile.
        above: Number of values > 0.9.
        values: Number of values.
    """

    skewness: float
    kurtosis: float
    p99: float
    above: int
    values: int


def moments(values: NDArray[np.float64]) -> Moments:
    """Return the statistics of values [N]; NaN where they are not defined."""
    if not len(values):
        return Moments(np.nan, np.nan, np.nan, 0, 0)
    from_mean = values - values.mean()
    variance = float((from_mean**2).mean())
    flat = variance <= 1e-20  # equal values up to rounding
    return Moments(
        np.nan if flat else float((from_mean**3).mean()) / variance**1.5,
        np.nan if flat else float((from_mean**4).mean()) / variance**2 - 3,
        float(np.percentile(values, 99)),
        int((values > 0.9).sum()),
        len(values),
    )


class MeanCorrelation:
    """The correlation matrix of a layer, averaged over images, in memory for one matrix.

    Images are added in their order, in blocks of 64, whatever the size of the batches is.
    """

    def __init__(self) -> None:
        self._waiting: list[Tensor] = []
        self._sum: Tensor | None = None
        self._defined: Tensor | None = None
        self._means: list[Tensor] = []

    def add(self, trains: Tensor) -> None:
        """Add the trains [B, T, N] of some images; N is the same in every call."""
        if len(trains):
            self._waiting.append(trains.detach().cpu())
        if sum(map(len, self._waiting)) >= _BLOCK:
            self._take()

    def matrix(self) -> dict[str, NDArray[np.float64]]:
        """Return the mean matrix [N, N] under each convention.

        "left out" averages over the images in which the correlation is defined, NaN if there are
        none; "zero" averages over all images, with 0 where it is not defined.
        """
        self._take(last=True)
        if self._sum is None or self._defined is None:
            return {convention: np.zeros((0, 0)) for convention in CONVENTIONS}
        images = sum(map(len, self._means))
        means = (self._sum / self._defined, self._sum / images)
        return {name: mean.numpy() for name, mean in zip(CONVENTIONS, means, strict=True)}

    def per_image(self) -> NDArray[np.float64]:
        """Return for every image [B, 3]: mean correlation of its pairs, undefined ones left out;
        the same with undefined ones as 0; share of its pairs that are undefined.
        """
        self._take(last=True)
        return torch.cat(self._means).numpy() if self._means else np.zeros((0, 3))

    def _take(self, *, last: bool = False) -> None:
        """Add the matrices of all full blocks, and with ``last`` those of the rest."""
        if not self._waiting:
            return
        waiting = torch.cat(self._waiting)
        full = len(waiting) if last else len(waiting) // _BLOCK * _BLOCK
        for start in range(0, full, _BLOCK):
            self._take_block(waiting[start : min(full, start + _BLOCK)])
        self._waiting = [waiting[full:]] if full < len(waiting) else []

    def _take_block(self, trains: Tensor) -> None:
        z, varies = _standardised(trains)
        flat, defined = z.flatten(0, 1), varies.double()
        product, pairs = flat.T @ flat, defined.T @ defined
        self._sum = product if self._sum is None else self._sum + product
        self._defined = pairs if self._defined is None else self._defined + pairs
        neurons, kept = z.shape[2], defined.sum(1)
        total = z.sum(2).square().sum(1) - z.square().sum((1, 2))  # both orders of every pair
        whole, own = neurons * (neurons - 1), kept * (kept - 1)
        left_out = torch.where(own > 0, total / own, torch.nan)
        self._means.append(torch.stack([left_out, total / whole, 1 - own / whole], 1))


def _standardised(trains: Tensor) -> tuple[Tensor, Tensor]:
    """Return trains [B, T, N] with mean 0 and norm 1 over T, and which are not constant [B, N].

    Constant trains become 0.
    """
    varies = (trains != trains[:, :1]).any(1)
    centred = trains.double() - trains.double().mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return torch.where(varies[:, None], centred / norm, 0.0), varies
