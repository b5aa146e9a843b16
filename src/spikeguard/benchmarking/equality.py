"""Test that a variant computes the same logits as the network it was built from."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.benchmarking.variants import Variant, ready
from spikeguard.kernels.selection import use_kernel
from spikeguard.models.snn import SNN
from spikeguard.neurons.modes import record

__all__ = ["Unequal", "require_equal", "tied"]

_TOLERANCE = 1e-4
_SHARE = 0.75  # of the images must agree; a different network differs on nearly all of them
_TIE = 2.0**-21  # four units in the last place of a float32 just below 1


class Unequal(ValueError):
    """The logits of a variant differ from those of the network it was built from."""


def tied(model: SNN, x: Tensor) -> Tensor:
    """Return the images on which a potential equals its threshold to within rounding, bool [B].

    On these images a spike can depend on the order of a sum, or on whether a tie fires: snnTorch
    and Norse fire at v > v_th, SpikeGuard and SpikingJelly at v >= v_th.
    """
    found = torch.zeros(len(x), dtype=torch.bool)
    for place in range(0, len(x), 16):  # potentials are large
        part = x[place : place + 16]
        with torch.no_grad(), use_kernel("reference"), record(model) as trace:
            model(part)
        for layer in trace.values():
            near = (layer.v - layer.v_th).abs() <= _TIE
            found[place : place + 16] |= near.transpose(0, 1).flatten(1).any(1).cpu()
    return found


def require_equal(variant: Variant, expected: Tensor, ties: Tensor, x: Tensor) -> None:
    """Reject a variant whose logits in evaluation mode differ from those of the network.

    A sum in another order changes a potential by a few units in the last place. Among millions of
    potentials one then crosses its threshold, and the logits of that image change. So a quarter of
    the images may differ; a wrong weight, decay or reset changes nearly all.

    Args:
        variant: The variant to test.
        expected: Logits [B, K] of the network on ``x``, by the reference kernel.
        ties: Images to leave out of the comparison [B], see :func:`tied`.
        x: Images [B, C, H, W].

    Raises:
        Unequal: If more images differ, or all images have a tie.
    """
    y = torch.zeros(len(x), dtype=torch.int64)
    with ready("eval", variant, x, y) as run:
        logits = run()
    if logits.shape != expected.shape:
        shapes = f"{list(logits.shape)} instead of {list(expected.shape)}"
        raise Unequal(f"{variant.name}: logits are {shapes}; not measured.")
    compared = ~ties.to(logits.device)
    if not bool(compared.any()):
        raise Unequal(f"{variant.name}: every image has a tie, nothing to compare; not measured.")
    difference = (logits - expected)[compared].abs()
    allowed = _TOLERANCE * (1 + expected[compared].abs())
    agree = (difference <= allowed).all(1)
    if float(agree.double().mean()) < _SHARE:
        raise Unequal(
            f"{variant.name}: logits differ by up to {float(difference.max()):.2g} from the "
            f"network it was built from, in {int((~agree).sum())} of {len(agree)} images; not "
            "measured."
        )
