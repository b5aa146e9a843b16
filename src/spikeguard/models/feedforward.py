"""MLP, CNN, VGG5 and VGG11 from one layer list: numbers are widths, "A" is average pooling by 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Unpack

from torch import nn

from spikeguard.models.options import NetworkOptions, reject_unknown
from spikeguard.models.snn import (
    SNN,
    TimeSequential,
    assemble,
    quiet_construction,
    readout_layers,
    scaled,
    spiking,
)

__all__ = ["CNN", "MLP", "VGG5", "VGG11", "feedforward"]

Layer = int | Literal["A"]

_VGG5: tuple[Layer, ...] = (64, "A", 128, 128, "A")
_VGG11: tuple[Layer, ...] = (64, "A", 128, 256, "A", 512, 512, 512, "A", 512, 512)


def feedforward(
    layers: Sequence[Layer],
    hidden: Sequence[int],
    *,
    in_shape: Sequence[int],
    num_classes: int,
    T: int,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """Build a network from widths: each conv 3x3 (pad 1, bias) - BN - neuron, each linear - neuron.

    Args:
        layers: Convolution widths and "A" for average pooling by 2.
        hidden: Widths of the hidden linear layers.
        in_shape: Shape of one input, (C, H, W) or (F,).
        num_classes: Number of classes K.
        T: Time steps.
        **options: See :class:`NetworkOptions`.

    Raises:
        ValueError: If a width is not positive, the image is too small for the poolings, or readout
            is unknown.
    """
    reject_unknown(options)
    neuron = options.get("neuron")
    if any(w != "A" and w < 1 for w in (*in_shape, *layers, *hidden, num_classes)):
        raise ValueError(
            f"sizes must be >= 1, got inputs {tuple(in_shape)}, widths {tuple(layers)} and "
            f"{tuple(hidden)}, {num_classes} classes."
        )
    channels, *size = in_shape
    with quiet_construction():
        convolutional: list[nn.Module] = []
        for layer in layers:
            if layer == "A":
                convolutional.append(nn.AvgPool2d(2))
                size = [s // 2 for s in size]
                if min(size) < 1:
                    raise ValueError(
                        f"an image of {tuple(in_shape[1:])} is too small for {tuple(layers)}."
                    )
            else:
                convolutional += [
                    nn.Conv2d(channels, layer, 3, padding=1),
                    nn.BatchNorm2d(layer),
                    spiking(neuron),
                ]
                channels = layer
        features = math.prod((channels, *size))
        classifier: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            classifier += [nn.Linear(features, width), spiking(neuron)]
            features = width
        classifier += readout_layers(
            features, num_classes, options.get("readout", "logits"), neuron
        )
    stages = {"features": TimeSequential(*convolutional)} if convolutional else {}
    stages["classifier"] = TimeSequential(*classifier)
    return assemble(stages, T=T, num_classes=num_classes, in_shape=in_shape, options=options)


def MLP(
    in_features: int = 784,
    num_classes: int = 10,
    T: int = 4,
    *,
    hidden: Sequence[int] = (256, 128),
    in_shape: Sequence[int] | None = None,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """Fully connected network: linear - neuron for each hidden width, then a linear readout.

    Args:
        in_features: Length of a flat input; ignored when ``in_shape`` is given.
        num_classes: Number of classes K.
        T: Time steps.
        hidden: Widths of the hidden layers.
        in_shape: Shape of one input (images are flattened inside), default (in_features,).
        **options: See :class:`NetworkOptions`.
    """
    if in_shape is None:
        in_shape = (in_features,)
    return feedforward((), hidden, in_shape=in_shape, num_classes=num_classes, T=T, **options)


def CNN(
    in_channels: int = 1,
    num_classes: int = 10,
    T: int = 4,
    *,
    width: int = 32,
    hidden: int = 128,
    image_size: int = 28,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """Small network: conv w - A - conv 2w - A - conv 4w - linear - linear (w = ``width``).

    Args:
        in_channels: Channels of an image.
        num_classes: Number of classes K.
        T: Time steps.
        width: Channels w of the first convolution.
        hidden: Width of the hidden linear layer.
        image_size: Height and width of an image, >= 4.
        **options: See :class:`NetworkOptions`.
    """
    layers: tuple[Layer, ...] = (width, "A", 2 * width, "A", 4 * width)
    shape = (in_channels, image_size, image_size)
    return feedforward(layers, (hidden,), in_shape=shape, num_classes=num_classes, T=T, **options)


def VGG5(
    in_channels: int = 3,
    num_classes: int = 10,
    T: int = 8,
    *,
    width: float = 1.0,
    image_size: int = 32,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """VGG5 of the SNN-RAT family: 64 A 128 128 A, then 4096, 4096, K: six weight layers, not five.

    Args:
        in_channels: Channels of an image.
        num_classes: Number of classes K.
        T: Time steps.
        width: Multiplies every width, for small versions.
        image_size: Height and width of an image.
        **options: See :class:`NetworkOptions`.
    """
    return _vgg(_VGG5, width, (in_channels, image_size, image_size), num_classes, T, options)


def VGG11(
    in_channels: int = 3,
    num_classes: int = 10,
    T: int = 8,
    *,
    width: float = 1.0,
    image_size: int = 32,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """VGG11 of the SNN-RAT family: eight convolutions, three average poolings, then 4096, 4096, K.

    Arguments as for :func:`VGG5`.
    """
    return _vgg(_VGG11, width, (in_channels, image_size, image_size), num_classes, T, options)


def _vgg(
    layers: Sequence[Layer],
    width: float,
    in_shape: tuple[int, int, int],
    num_classes: int,
    T: int,
    options: NetworkOptions,
) -> SNN:
    return feedforward(
        ["A" if w == "A" else scaled(w, width) for w in layers],
        [scaled(4096, width)] * 2,
        in_shape=in_shape,
        num_classes=num_classes,
        T=T,
        **options,
    )
