"""WRN-16-4: the pre-activation wide residual network of the SNN-RAT family."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from spikeguard.kernels.layout import Layout
from spikeguard.kernels.selection import as_defined
from spikeguard.models.options import NetworkOptions, reject_unknown
from spikeguard.models.snn import (
    SNN,
    Temporal,
    TimeSequential,
    assemble,
    fold,
    quiet_construction,
    readout_layers,
    scaled,
    spiking,
)
from spikeguard.neurons.base import Neuron

__all__ = ["WRN16_4", "ConvexCombination"]


class ConvexCombination(nn.Module):
    """c1 * a + c2 * b with a trainable pair (c1, c2), (0.5, 0.5) at the start.

    Only a constraint in the training objective keeps the pair on the simplex.
    """

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Combine two tensors that broadcast."""
        if a.shape != b.shape or a.dtype != b.dtype or as_defined(a.device):
            return self.coefficients[0] * a + self.coefficients[1] * b
        joined: Tensor = _Joined.apply(a, b, self.coefficients)  # type: ignore[no-untyped-call]
        return joined


class _Joined(torch.autograd.Function):
    """c1 a + c2 b with few passes over memory."""

    @staticmethod
    def forward(ctx, a, b, coefficients):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        # With frozen coefficients the backward pass needs neither input.
        kept = (a, b) if ctx.needs_input_grad[2] else (None, None)
        ctx.save_for_backward(coefficients, *kept)
        first, second = coefficients.to(a.dtype)
        return torch.mul(a, first).addcmul_(b, second)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        coefficients, *inputs = ctx.saved_tensors
        first, second = coefficients.to(grad.dtype)
        d_a = grad * first if ctx.needs_input_grad[0] else None
        d_b = grad * second if ctx.needs_input_grad[1] else None
        d_coefficients = None
        if ctx.needs_input_grad[2]:
            sums = torch.stack([_inner(grad, x) for x in inputs])
            d_coefficients = sums.to(coefficients.dtype)
        return d_a, d_b, d_coefficients


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of a b over all elements, without storing the product."""
    if a.dtype not in (torch.float32, torch.float64):
        return (a * b).sum(dtype=torch.float32)
    layout = Layout.of(a)
    order = (0, 1, 3, 4, 2) if layout.channels_last else range(a.ndim)
    return torch.dot(*(layout.dense(x).permute(*order).reshape(-1) for x in (a, b)))


class _Block(Temporal):
    """BN - neuron - conv - BN - neuron - conv and a shortcut, joined by a ConvexCombination.

    Where the number of channels changes, the activated input feeds both branches and the shortcut
    is a 1x1 convolution; elsewhere the shortcut is the raw input.
    """

    def __init__(self, channels: int, out_channels: int, stride: int, neuron: Neuron | None):
        super().__init__()
        self.activate = TimeSequential(nn.BatchNorm2d(channels), spiking(neuron))
        self.residual = TimeSequential(
            nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            spiking(neuron),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
        )
        self.shortcut = (
            None
            if channels == out_channels and stride == 1
            else nn.Conv2d(channels, out_channels, 1, stride, bias=False)
        )
        self.join = ConvexCombination()

    def forward(self, x: Tensor, T: int) -> Tensor:
        active = self.activate(x, T)
        through = x if self.shortcut is None else fold(self.shortcut, active)
        joined: Tensor = self.join(through, self.residual(active, T))
        return joined


def WRN16_4(
    in_channels: int = 3,
    num_classes: int = 10,
    T: int = 8,
    *,
    width: float = 1.0,
    image_size: int = 32,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """Wide ResNet 16-4: conv 16, three stages of two blocks, BN - neuron.

    The stages have 64, 128 and 256 channels and strides 1, 2 and 2. The mean over the final feature
    map (8x8 for 32x32 images) feeds one linear layer.

    Args:
        in_channels: Channels of an image.
        num_classes: Number of classes K.
        T: Time steps.
        width: Multiplies the widths of stem and stages, for small versions.
        image_size: Height and width of an image, a multiple of 4.
        **options: See :class:`NetworkOptions`.

    Raises:
        ValueError: If width or image_size is out of range, or readout is unknown.

    Source: Zagoruyko and Komodakis, BMVC 2016; SNN-RAT's public code for the joins.
    """
    reject_unknown(options)
    neuron = options.get("neuron")
    if image_size < 4 or image_size % 4:
        raise ValueError(f"WRN16_4: image_size must be a multiple of 4, got {image_size}.")
    stem, *widths = (scaled(w, width) for w in (16, 64, 128, 256))
    with quiet_construction():
        features: list[nn.Module] = [nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)]
        channels = stem
        for out_channels, stride in zip(widths, (1, 2, 2), strict=True):
            features.append(_Block(channels, out_channels, stride, neuron))
            features.append(_Block(out_channels, out_channels, 1, neuron))
            channels = out_channels
        features += [nn.BatchNorm2d(channels), spiking(neuron)]
        classifier: list[nn.Module] = [
            nn.AvgPool2d(image_size // 4),
            nn.Flatten(),
            *readout_layers(channels, num_classes, options.get("readout", "logits"), neuron),
        ]
    return assemble(
        {"features": TimeSequential(*features), "classifier": TimeSequential(*classifier)},
        T=T,
        num_classes=num_classes,
        in_shape=(in_channels, image_size, image_size),
        options=options,
    )
