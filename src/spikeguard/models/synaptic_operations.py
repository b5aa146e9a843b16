r"""Synaptic operations of convolutions and linear layers, counted during a forward pass.

An input entry x_i that is not 0 costs one operation for each of its weights that are not 0 and lead
to an output inside the layer:

.. math::
    S = \sum_i [x_i \neq 0]\, f_i, \quad f_i = \sum_{o} [w_{oi} \neq 0]

The fan-out f of every position follows from padding, stride, dilation and groups: a spike at the
border of an image has fewer targets than one in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.kernels.observation import Reader
from spikeguard.models.spike_counts import EXACT

__all__ = [
    "LayerOperations",
    "count_operations",
    "fan_out",
    "joined_operations",
    "uncounted_layers",
]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_COUNTED = (*_CONVOLUTIONS, nn.Linear)
_Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@dataclass(frozen=True, eq=False)
class LayerOperations:
    """Operations of one layer in one forward pass.

    Attributes:
        effective: Operations of each image on inputs and weights that are not 0, int64 [B], over
            the steps that the layer computes.
        dense: Operations of an image on all inputs and weights, in the steps that it computes.
        graded: Whether an input entry is not -1, 0 or 1, so that operations are multiply-accumulate
            (MAC); otherwise they are accumulate (AC).
        steps: Steps that the layer computes: T, or 1 where T equal steps are computed once.
    """

    effective: Tensor
    dense: int
    graded: bool
    steps: int


class _Counts(Mapping[str, LayerOperations]):
    def __init__(self, layers: Mapping[str, _Synapses]):
        self._layers, self.images = layers, 0

    def __getitem__(self, name: str) -> LayerOperations:
        return self._layers[name].total(self.images)

    def __iter__(self) -> Iterator[str]:
        return (name for name, layer in self._layers.items() if layer.calls)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@contextmanager
def count_operations(model: nn.Module) -> Iterator[Mapping[str, LayerOperations]]:
    """Count the operations of every convolution and linear layer that is called as a module.

    The fused kernels stay in use. The counts are those of the last forward pass, by layer name in
    network order, and stay readable after the block. Biases, normalisation, pooling and neurons are
    no synaptic operations. A foreign network must have been called once before.

    Args:
        model: A classifier ``model(x [B, ...]) -> logits [B, K]``; its weights stay unchanged
            inside the block.

    Source: ``SynapticOperations`` of NeuroBench (Yik et al., 2025, doi:10.1038/s41467-025-56739-4).
    """
    layers = {name: _Synapses() for name, m in model.named_modules() if isinstance(m, _COUNTED)}
    counts = _Counts(layers)
    handles = [
        module.register_forward_pre_hook(layers[name])
        for name, module in model.named_modules()
        if name in layers
    ]
    handles.append(model.register_forward_pre_hook(_Start(layers)))
    handles.append(model.register_forward_hook(_End(counts)))
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def joined_operations(
    passes: Sequence[Mapping[str, LayerOperations]],
) -> dict[str, LayerOperations]:
    """Return the counts of several passes over different images as those of one pass."""
    found = {}
    for name in passes[0]:
        layers = [each[name] for each in passes]
        found[name] = LayerOperations(
            torch.cat([layer.effective for layer in layers]),
            layers[0].dense,
            any(layer.graded for layer in layers),
            layers[0].steps,
        )
    return found


def uncounted_layers(model: nn.Module) -> list[str]:
    """Return the names of layers with a matrix of weights whose operations are not counted."""
    return [
        name
        for name, module in model.named_modules()
        if not isinstance(module, _COUNTED)
        and any(p.ndim >= 2 and "weight" in n for n, p in module.named_parameters(recurse=False))
    ]


def fan_out(layer: _Layer, shape: Sequence[int], *, dense: bool = False) -> Tensor:
    """Return the number of weights that each input entry reaches, int64, shaped like one input.

    Args:
        layer: A convolution or a linear layer.
        shape: Shape of one input without the batch axis: [C, *size], or [F].
        dense: Also count weights that are 0.
    """
    weight = layer.weight.detach()
    mask = torch.ones_like(weight) if dense else (weight != 0)
    mask = mask.to(torch.float64)
    if isinstance(layer, nn.Linear):
        return mask.sum(0).long()
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros(1, *shape, dtype=mask.dtype, device=mask.device, requires_grad=True)
        reached = layer._conv_forward(x, mask.clone(), None)
        (found,) = torch.autograd.grad(reached.sum(), x)
    return found[0].round().long()


class _Start(Reader):
    """Hook that forgets the previous pass of the network."""

    def __init__(self, layers: Mapping[str, _Synapses]):
        self.layers = layers

    def __call__(self, module: nn.Module, given: Any) -> None:
        for layer in self.layers.values():
            layer.calls.clear()


class _End(Reader):
    """Hook that reads the number of images from the logits [B, K]."""

    def __init__(self, counts: _Counts):
        self.counts = counts

    def __call__(self, module: nn.Module, given: Any, out: Any) -> None:
        self.counts.images = len(out)


class _Synapses(Reader):
    """Hook that counts the operations on the input of a layer, [rows, C, *size] or [rows, F]."""

    def __init__(self) -> None:
        self.calls: list[Tensor] = []
        self.graded = False
        self.dense = 0
        self._maps: dict[tuple[int, ...], tuple[list[tuple[int, Tensor]], int]] = {}

    def __call__(self, module: nn.Module, given: Any) -> None:
        if not self.calls:
            self.graded = False
        assert isinstance(module, _COUNTED)
        x = given[0].detach()
        axes = 1 if isinstance(module, nn.Linear) else module.weight.ndim - 1
        x = x.reshape(-1, *x.shape[x.ndim - axes :])
        if axes > 1:  # channels last, as most inputs are stored
            x = x.movedim(1, -1)
        shape = tuple(x.shape[1:])
        if shape not in self._maps:
            self._maps[shape] = _pieces(module, shape, axes)
        pieces, self.dense = self._maps[shape]
        x = self._non_zero(x).flatten(1)
        rows = x.new_zeros(len(x), dtype=torch.float64)
        at = 0
        for width, reached in pieces:
            rows += x[:, at : at + width] @ reached.to(x)
            at += width
        self.calls.append(rows.round().long())

    def _non_zero(self, x: Tensor) -> Tensor:
        """Return 1 where x is not 0, in a type in which the sums are exact; note graded inputs."""
        kind = torch.float64 if x.is_cuda or x.dtype == torch.float64 else torch.float32
        if not self.graded:
            square = x * x
            if torch.equal(square, x):  # 0 and 1 only
                return x.to(kind)
            self.graded = not torch.equal(square, x.abs())
        return torch.ne(x, 0, out=torch.empty_like(x, dtype=kind))

    def total(self, images: int) -> LayerOperations:
        """Return the counts of a pass; rows are steps of images, the images innermost."""
        rows = torch.cat(self.calls)
        steps = len(rows) // max(1, images)
        if steps * images != len(rows):
            raise ValueError(
                f"count_operations: a layer got {len(rows)} inputs for {images} images; its "
                "operations cannot be divided among them."
            )
        effective = rows.view(steps, images).sum(0)
        return LayerOperations(effective, steps * self.dense, self.graded, steps)


def _pieces(
    module: _Layer, shape: tuple[int, ...], axes: int
) -> tuple[list[tuple[int, Tensor]], int]:
    """Return the fan-out, channels last, in pieces whose sums float32 holds exactly; and its sum.

    The sum counts weights that are 0 too.
    """
    size = shape if axes == 1 else (shape[-1], *shape[:-1])
    reached, dense = fan_out(module, size), fan_out(module, size, dense=True)
    flat = (reached if axes == 1 else reached.movedim(0, -1)).flatten()
    width = max(1, EXACT // max(1, int(flat.max())))
    parts = torch.split(flat, width)
    return [(len(part), part) for part in parts], int(dense.sum())
