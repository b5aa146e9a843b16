"""Histogram of the membrane potentials of a network, relative to the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeguard.attacks.model_access import evaluating
from spikeguard.data.images import Data, as_image_set
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.neurons.modes import record
from spikeguard.neurons.trace import LayerTrace
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.storage.atomic_files import write_npz
from spikeguard.storage.digests import weights_digest
from spikeguard.storage.npz_files import read_npz

__all__ = [
    "NEAR",
    "LayerCounts",
    "MembraneHistogram",
    "bin_counts",
    "count_potentials",
    "default_edges",
    "is_near",
    "membrane_histogram",
    "relative_distance",
]

NEAR = 0.2  # "near the threshold": |v / v_th - 1| below this
_COUNTED = ("near", "active", "spikes")


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """Integer counts over all steps, images and neurons of one layer, or of several together.

    Attributes:
        counts: Potentials in each bin, int64 [bins]; their sum is the number of potentials.
        near: Potentials with |v / v_th - 1| below the margin, 0.2 unless another is given.
        active: Potentials at which the layer's surrogate is > 0, so that a gradient can pass.
        spikes: Spikes, before the gate of a neuron with stochastic gates (StoG).
    """

    counts: NDArray[np.int64]
    near: int
    active: int
    spikes: int

    def __add__(self, other: LayerCounts) -> LayerCounts:
        return LayerCounts(
            self.counts + other.counts,
            self.near + other.near,
            self.active + other.active,
            self.spikes + other.spikes,
        )

    @property
    def potentials(self) -> int:
        """Number of potentials counted."""
        return int(self.counts.sum())

    @property
    def near_threshold(self) -> float:
        """Share of potentials near the threshold, in [0, 1]."""
        return self.near / self.potentials

    @property
    def surrogate_active(self) -> float:
        """Share of potentials at which the surrogate is > 0, in [0, 1]."""
        return self.active / self.potentials

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and step, in [0, 1], before a stochastic gate."""
        return self.spikes / self.potentials


@dataclass(frozen=True, eq=False)
class MembraneHistogram:
    """Histogram of v / v_th - 1 for every spiking layer; v is the potential before reset.

    Attributes:
        layers: Counts by layer name, in network order.
        edges: Bin edges, float64 [bins + 1], from -inf to inf; a bin includes its lower
            edge. The threshold, 0, is an edge: potentials at or above it fire.
        samples: Number of images.
        weights: Digest of the network's weights; "" where it is not known.
    """

    layers: Mapping[str, LayerCounts]
    edges: NDArray[np.float64]
    samples: int
    weights: str = ""

    @property
    def pooled(self) -> LayerCounts:
        """Counts of all layers together; a layer is weighted by its number of neurons."""
        return reduce(LayerCounts.__add__, self.layers.values())

    @property
    def near_threshold(self) -> float:
        """Share of all potentials with |v / v_th - 1| < 0.2."""
        return self.pooled.near_threshold

    @property
    def surrogate_active(self) -> float:
        """Share of all potentials at which the surrogate is > 0."""
        return self.pooled.surrogate_active

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and step, over all layers, before a stochastic gate."""
        return self.pooled.firing_rate

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file without pickles, atomically."""
        rows = list(self.layers.values())
        write_npz(
            path,
            layers=np.array(list(self.layers), dtype=np.str_),
            edges=self.edges,
            samples=np.int64(self.samples),
            weights=np.str_(self.weights),
            counts=np.stack([row.counts for row in rows]),
            **{name: np.array([getattr(row, name) for row in rows]) for name in _COUNTED},
        )

    @classmethod
    def load(cls, path: str | Path) -> MembraneHistogram:
        """Load a histogram written by :meth:`save`.

        Raises:
            ValueError: If the file is damaged or not a histogram; the message names the file.
        """
        try:
            stored = read_npz(path)
            names = [str(name) for name in stored["layers"]]
            columns = [stored[name] for name in ("counts", *_COUNTED)]
            rows = [
                LayerCounts(counts.astype(np.int64), *map(int, rest))
                for counts, *rest in zip(*columns, strict=True)
            ]
            layers = dict(zip(names, rows, strict=True))
            weights = str(stored["weights"]) if "weights" in stored else ""
            edges = stored["edges"].astype(np.float64)
            return cls(layers, edges, int(stored["samples"]), weights)
        except (LookupError, ValueError, TypeError) as error:
            raise ValueError(
                f"{path}: no membrane histogram, or a damaged one ({error}); delete it and measure "
                "again."
            ) from error


def default_edges(span: int = 4, per_unit: int = 20) -> NDArray[np.float64]:
    """Return edges from -span to span, ``per_unit`` bins per v_th, plus -inf and inf."""
    inner = np.arange(-span * per_unit, span * per_unit + 1) / per_unit
    return np.concatenate([[-np.inf], inner, [np.inf]])


def membrane_histogram(
    model: nn.Module,
    data: Data,
    *,
    limit: int | None = 256,
    bins: Sequence[float] | NDArray[np.float64] | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> MembraneHistogram:
    r"""Count the membrane potentials of a network on clean images, by distance to the threshold.

    .. math:: x = (v[t] - v_{th}) / v_{th}

    v is the potential before reset, noise included: the one compared with the threshold. A neuron
    fires at x >= 0; x = -1 is rest. Runs in evaluation mode without gradients; the model is left
    unchanged.

    Args:
        model: A network with spiking layers.
        data: An ImageSet or a pair (x [N, C, H, W] in [0, 1], y [N]).
        limit: Number of images to use, the first ones; None uses all.
        bins: Inner bin edges in units of v_th, increasing; -inf and inf are added.
            Default :func:`default_edges`: 20 bins per v_th from -4 to 4.
        batch_size: Images per batch; the counts do not depend on it.
        seed: Seed of the noise of stochastic layers, one stream per image.

    Raises:
        ValueError: If the network has no spiking layer, a potential is NaN, or an argument is out
            of range.

    Example:
        >>> from spikeguard.models import MLP
        >>> model = MLP(in_features=4, hidden=[3], in_shape=[1, 2, 2])
        >>> dark = torch.zeros(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)
        >>> found = membrane_histogram(model, dark)  # no input and no bias: all at rest
        >>> list(found.layers), found.pooled.potentials, found.firing_rate
        (['classifier.2'], 60, 0.0)
    """
    images = as_image_set(data)
    edges = _checked(default_edges() if bins is None else np.asarray(bins, dtype=np.float64))
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(
            f"membrane_histogram: limit and batch_size must be >= 1, got {limit} and {batch_size}."
        )
    samples = len(images) if limit is None else min(limit, len(images))
    streams = SampleStreams(key(seed, "membrane"), torch.arange(samples))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    layers: dict[str, LayerCounts] = {}
    with evaluating(model), torch.no_grad(), record(model) as trace:
        for start in range(0, samples, batch_size):
            index = torch.arange(start, min(start + batch_size, samples))
            with randomness(model, streams.take(index)):
                model(in_dtype_of(model, images.batch(index)[0].to(device)))
            for name, seen in trace.items():
                found = _count(name, seen, edges)
                layers[name] = layers[name] + found if name in layers else found
    if not layers:
        raise ValueError(
            f"membrane_histogram: {type(model).__name__} has no spiking layer; pass a network of "
            "spikeguard.models."
        )
    return MembraneHistogram(layers, edges, samples, weights_digest(model.state_dict()))


def _count(name: str, seen: LayerTrace, edges: NDArray[np.float64]) -> LayerCounts:
    """Count one layer's potentials of one batch."""
    return count_potentials(seen, relative_distance(name, seen), edges, NEAR)


def relative_distance(name: str, seen: LayerTrace) -> Tensor:
    """Return (v - v_th) / v_th of a layer [T, B, *N]; its sign is exact.

    Raises:
        ValueError: If a potential is NaN; the message names the layer.
    """
    distance = seen.v - seen.v_th  # its sign is exact, that of v / v_th - 1 is not
    if bool(distance.isnan().any()):
        raise ValueError(f"layer {name!r} has a potential that is NaN.")
    return distance / seen.v_th


def is_near(x: Tensor, margin: float) -> Tensor:
    """Return where relative distances are less than a margin from the threshold."""
    return x.abs() < margin


def bin_counts(
    x: Tensor, edges: NDArray[np.float64], group: Tensor | None = None, groups: int = 1
) -> NDArray[np.int64]:
    """Return the number of relative distances in each bin; a bin includes its lower edge.

    Args:
        x: Relative distances, of any shape.
        edges: Increasing, from -inf to inf [bins + 1].
        group: Group of every distance, in [0, groups); or None for one group.
        groups: Number of groups.

    Returns:
        Counts [bins], or [groups, bins] if groups are given.
    """
    inner = torch.as_tensor(edges[1:-1], dtype=x.dtype, device=x.device)
    places, bins = torch.bucketize(x.flatten().contiguous(), inner, right=True), len(edges) - 1
    if group is None:
        return torch.bincount(places, minlength=bins).cpu().numpy()
    places += bins * group.flatten()
    return torch.bincount(places, minlength=bins * groups).view(groups, bins).cpu().numpy()


def count_potentials(
    seen: LayerTrace, x: Tensor, edges: NDArray[np.float64], margin: float
) -> LayerCounts:
    """Count a layer's potentials, of all its steps or of some.

    Args:
        seen: The layer's trace, or a part of it.
        x: Its relative distances to the threshold.
        edges: See :func:`bin_counts`.
        margin: Distance, in units of v_th, below which a potential is near the threshold.
    """
    return LayerCounts(
        bin_counts(x, edges),
        int(is_near(x, margin).sum()),
        int((seen.surrogate(seen.v - seen.v_th) > 0).sum()),
        int(seen.spikes.sum(dtype=torch.float64)),
    )


def _checked(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return edges from -inf to inf, strictly increasing."""
    if edges.ndim != 1 or edges.size < 1 or np.isnan(edges).any():
        raise ValueError("membrane_histogram: bins is a list of numbers, at least one.")
    inner = edges[np.isfinite(edges)]
    if (np.diff(edges) <= 0).any() or inner.size == 0:
        raise ValueError("membrane_histogram: bins must increase and hold a finite edge.")
    return np.concatenate([[-np.inf], inner, [np.inf]])
