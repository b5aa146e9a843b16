"""Networks of the operational-space study (Mazurek et al.): spiking VGG-11, MLP and CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from torch import Tensor, nn

from spikeguard.encoders.coding import Poisson
from spikeguard.models.feedforward import CNN, MLP
from spikeguard.models.options import NetworkOptions, reject_unknown
from spikeguard.models.snn import (
    SNN,
    Temporal,
    TimeSequential,
    assemble,
    quiet_construction,
    readout_layers,
    scaled,
    spiking,
)
from spikeguard.neurons.lif import LIF
from spikeguard.neurons.surrogate import ATan, Sigmoid
from spikeguard.rng import RandomSource

__all__ = ["Dropout", "OperationalCNN", "OperationalMLP", "SpikingVGG11"]

_VGG11: tuple[int | Literal["M"], ...] = (
    *(64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
)
_SMALLEST = 2**5  # five poolings by 2 reduce it to one pixel
_GRID = 7  # height and width of the feature map before the classifier


class Dropout(Temporal):
    """Dropout with one mask per sample, the same at all T steps.

    A dropped neuron is zero for the whole sample, as in a network without time; the others are
    scaled by 1 / (1 - p). Masks are drawn from the source bound by ``randomness(model, source)``.
    In evaluation mode, and so in attacks, it does nothing.

    Args:
        p: Probability that a neuron is dropped, in [0, 1).

    Raises:
        ValueError: If p is outside [0, 1).

    Source: Srivastava et al., "Dropout", JMLR 2014; one mask for all steps: Rathi and Roy,
    "DIET-SNN", 2020.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p is a probability in [0, 1), got {p:g}.")
        self.p = float(p)
        self.random = RandomSource()

    @property
    def stochastic(self) -> bool:
        """Whether two calls can differ in the current mode."""
        return self.training and self.p > 0

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map [T or 1, B, *N] to the same."""
        if not self.stochastic:
            return x
        kept = (self.random.uniform(x[:1], dim=1) >= self.p).to(x.dtype)
        return x * (kept / (1 - self.p))

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return f"p={self.p:g}"


def SpikingVGG11(
    in_channels: int = 3,
    num_classes: int = 10,
    T: int = 10,
    *,
    batch_norm: bool = True,
    dropout: float = 0.5,
    width: float = 1.0,
    image_size: int = 32,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """Spiking VGG-11: torchvision's VGG-11 with neurons in place of ReLUs. Not :func:`VGG11`.

    Conv 64 M 128 M 256 256 M 512 512 M 512 512 M (M: max pooling by 2), mean over a 7x7 grid, then
    4096 and 4096, each followed by dropout, and K. Images below 32x32 are padded to it with zeros
    (after normalisation, as a convolution pads): five poolings would reduce 28x28 to nothing.

    Args:
        in_channels: Channels of an image.
        num_classes: Number of classes K.
        T: Time steps.
        batch_norm: Put batch normalisation between each convolution and its neuron. The study does
            not say. Without it no layer of an untrained network fires at v_th = 1; all do at 0.1.
        dropout: Probability p of the two :class:`Dropout` layers, in [0, 1).
        width: Multiplies every width, for small versions.
        image_size: Height and width of an image.
        **options: See :class:`NetworkOptions`. Other defaults: ``readout`` is "rate" and ``neuron``
            is ``LIF.from_tau(2, decay_input=True)`` with ``Sigmoid(4)``.

    Raises:
        ValueError: If dropout, width, a size or readout is out of range.

    Source: Mazurek et al., "Analyzing internal activity and robustness of SNNs across neuron
    parameter space", section III-C; Simonyan and Zisserman, 2015, arXiv:1409.1556, configuration A.
    """
    reject_unknown(options)
    if min(in_channels, num_classes, image_size) < 1:
        raise ValueError(
            f"SpikingVGG11: sizes must be >= 1, got {in_channels} channels, image_size "
            f"{image_size}, {num_classes} classes."
        )
    neuron = options.get("neuron")
    if neuron is None:
        neuron = LIF.from_tau(2.0, decay_input=True, surrogate=Sigmoid(4.0))
    dense = scaled(4096, width)
    with quiet_construction():
        features, channels = _padding(image_size), in_channels
        for layer in _VGG11:
            if layer == "M":
                features.append(nn.MaxPool2d(2))
                continue
            out = scaled(layer, width)
            features.append(nn.Conv2d(channels, out, 3, padding=1))
            if batch_norm:
                features.append(nn.BatchNorm2d(out))
            features.append(spiking(neuron))
            channels = out
        classifier: list[nn.Module] = [nn.AdaptiveAvgPool2d(_GRID), nn.Flatten()]
        for inputs in (channels * _GRID**2, dense):
            classifier += [nn.Linear(inputs, dense), spiking(neuron), Dropout(dropout)]
        classifier += readout_layers(dense, num_classes, options.get("readout", "rate"), neuron)
    return assemble(
        {"features": TimeSequential(*features), "classifier": TimeSequential(*classifier)},
        T=T,
        num_classes=num_classes,
        in_shape=(in_channels, image_size, image_size),
        options=options,
    )


def OperationalMLP(
    in_features: int = 784,
    num_classes: int = 10,
    T: int = 10,
    *,
    hidden: Sequence[int] = (256, 128),
    in_shape: Sequence[int] | None = None,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """:func:`MLP` as in the study: Poisson input, three linear LIF layers, mean firing rate.

    The study gives no widths; ``hidden`` is our choice, and not the study's: the 394 neurons emit
    at most 3.94e7 spikes on 10,000 images at T = 10, and its Table II prints 6.18e7. Arguments as
    for :func:`MLP`, other defaults: ``encoder`` is ``Poisson()``, ``neuron`` is
    ``LIF.from_tau(2, decay_input=True)`` with ``ATan(2)``; the study varies its tau and v_th.

    Source: Mazurek et al., as for :func:`SpikingVGG11`, section III-B.
    """
    if options.get("encoder") is None:
        options["encoder"] = Poisson()
    return MLP(
        in_features, num_classes, T, hidden=hidden, in_shape=in_shape, **_with_defaults(options)
    )


def OperationalCNN(
    in_channels: int = 1,
    num_classes: int = 10,
    T: int = 10,
    *,
    width: int = 32,
    hidden: int = 128,
    image_size: int = 28,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """:func:`CNN` as in the study: three convolutions, two linear LIF layers, mean firing rate.

    The study gives neither widths nor kernels, poolings, normalisation or input code: those of
    :func:`CNN` are our choice. Arguments as for :func:`CNN`; ``neuron`` is by default that of
    :func:`OperationalMLP`.

    Source: Mazurek et al., as for :func:`SpikingVGG11`, section III-B.
    """
    return CNN(
        in_channels,
        num_classes,
        T,
        width=width,
        hidden=hidden,
        image_size=image_size,
        **_with_defaults(options),
    )


def _with_defaults(options: NetworkOptions) -> NetworkOptions:
    """Fill in the study's readout and neuron where the caller gives none."""
    filled: NetworkOptions = {"readout": "rate", **options}
    if filled.get("neuron") is None:
        filled["neuron"] = LIF.from_tau(2.0, decay_input=True, surrogate=ATan(2.0))
    return filled


def _padding(image_size: int) -> list[nn.Module]:
    missing = max(0, _SMALLEST - image_size)
    before, after = missing // 2, missing - missing // 2
    return [nn.ZeroPad2d((before, after, before, after))] if missing else []
