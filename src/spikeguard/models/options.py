"""Options that every network builder takes: neuron, encoder, readout, normalisation, generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import torch

from spikeguard.encoders.coding import Encoder
from spikeguard.neurons.base import Neuron

__all__ = ["NetworkOptions", "Readout", "reject_unknown"]

Readout = Literal["logits", "rate"]


class NetworkOptions(TypedDict, total=False):
    """Keyword arguments shared by all network builders; each may be left out.

    A builder takes them as ``**options: Unpack[NetworkOptions]``. Recipes read the same names and
    types from this class. A builder with other defaults documents them.

    Attributes:
        neuron: Prototype, copied for every layer; default ``LIF(0.5)``.
        encoder: Turns an image into T frames; default ``Direct()``.
        readout: "logits" (default) averages the output of the last linear layer over T; "rate"
            adds a neuron after it and averages its spikes, so logits are in [0, 1].
        mean: Mean of the inputs in their units, [0, 1] for images, subtracted inside the model:
            one number per channel [C] or one for all; default ``(0.0,)``.
        std: Standard deviation of the inputs, > 0, divided by inside the model: one number per
            channel [C] or one for all; default ``(1.0,)``.
        generator: CPU generator that draws the initial weights; default the stream ``(0, "init")``.
    """

    neuron: Neuron | None
    encoder: Encoder | None
    readout: Readout
    mean: Sequence[float]
    std: Sequence[float]
    generator: torch.Generator | None


def reject_unknown(options: NetworkOptions) -> None:
    """Check the keyword arguments of a builder, as Python does where a function names them.

    Raises:
        TypeError: If one of them is not in :class:`NetworkOptions`.
    """
    known = NetworkOptions.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(
                f"unexpected keyword argument {name!r}; all networks take {', '.join(known)}."
            )
