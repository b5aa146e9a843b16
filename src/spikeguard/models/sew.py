"""SEW-ResNet and Spiking-ResNet 18/34/50: torchvision's ResNet with neurons in place of ReLUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Unpack

from torch import Tensor, nn

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
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.lif import IF
from spikeguard.neurons.surrogate import ATan

__all__ = ["SEWResNet", "SpikingResNet"]

Depth = Literal[18, 34, 50]
Stem = Literal["imagenet", "cifar"]
Pool = Literal["max", "avg"]

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_WIDTHS = (64, 128, 256, 512)


class _SEWBlock(Temporal):
    """Adds the spikes of residual branch and shortcut: the output is counts, not only 0 and 1."""

    def __init__(self, residual: list[nn.Module], shortcut: list[nn.Module], neuron: Neuron | None):
        super().__init__()
        self.residual = TimeSequential(*residual, spiking(neuron))
        self.shortcut = TimeSequential(*shortcut, spiking(neuron)) if shortcut else None

    def forward(self, x: Tensor, T: int) -> Tensor:
        spikes: Tensor = self.residual(x, T)
        return spikes + (x if self.shortcut is None else self.shortcut(x, T))


class _SpikingBlock(Temporal):
    """Adds the shortcut to the current of the residual branch, before the last neuron."""

    def __init__(self, residual: list[nn.Module], shortcut: list[nn.Module], neuron: Neuron | None):
        super().__init__()
        self.residual = TimeSequential(*residual)
        self.shortcut = TimeSequential(*shortcut) if shortcut else None
        self.neuron = spiking(neuron)

    def forward(self, x: Tensor, T: int) -> Tensor:
        current = self.residual(x, T) + (x if self.shortcut is None else self.shortcut(x, T))
        spikes: Tensor = self.neuron(current, T=T)
        return spikes


def SEWResNet(
    in_channels: int = 3,
    num_classes: int = 10,
    T: int = 10,
    *,
    depth: Depth = 18,
    stem: Stem = "imagenet",
    pool: Pool | None = None,
    width: float = 1.0,
    image_size: int = 32,
    **options: Unpack[NetworkOptions],
) -> SNN:
    r"""SEW-ResNet: every block adds the spikes of its two branches, s = s_residual + s_shortcut.

    Stem, four stages, mean over the last feature map, one linear layer. A block's branch is
    conv 3x3 - BN - neuron, twice (18, 34), or 1x1, 3x3, 1x1 with four times the width at its end
    (50; the stride is on the 3x3). Where size or width changes, the shortcut is
    conv 1x1 - BN - neuron, elsewhere the input itself. The sums are counts >= 0 that may exceed 1.

    Args:
        in_channels: Channels of an image.
        num_classes: Number of classes K.
        T: Time steps.
        depth: 18, 34 or 50.
        stem: "imagenet" is conv 7x7 stride 2 - BN - neuron - pooling, and reduces 32x32 images
            to 8x8; "cifar" is conv 3x3 stride 1 - BN - neuron, and keeps 32x32.
        pool: Pooling of the imagenet stem (kernel 3, stride 2, padding 1): "max" or "avg"; None is
            "max". The cifar stem has none.
        width: Multiplies every width, for small versions.
        image_size: Height and width of an image.
        **options: See :class:`NetworkOptions`. The default ``neuron`` is ``IF`` with ``ATan(2)``
            and ``detach_reset=True``. The paper that attacks these networks uses ``Phase()`` as
            ``encoder``.

    Raises:
        ValueError: If depth, stem, pool, width, a size or readout is out of range, or the cifar
            stem is given a pooling.

    Source: Fang et al., "Deep residual learning in spiking neural networks", NeurIPS 2021; as
    undefended networks under attack in arXiv:2509.23762.
    """
    if options.get("neuron") is None:
        options["neuron"] = IF(surrogate=ATan(2.0), detach_reset=True)
    shape = (in_channels, image_size, image_size)
    return _resnet(_SEWBlock, depth, stem, pool, width, shape, num_classes, T, options)


def SpikingResNet(
    in_channels: int = 3,
    num_classes: int = 10,
    T: int = 10,
    *,
    depth: Depth = 18,
    stem: Stem = "imagenet",
    pool: Pool | None = None,
    width: float = 1.0,
    image_size: int = 32,
    **options: Unpack[NetworkOptions],
) -> SNN:
    """Spiking-ResNet: every block adds its shortcut to the current of its last neuron.

    The same weights in the same places as :func:`SEWResNet`; the shortcut has no neuron.
    Arguments as for :func:`SEWResNet`, but the default ``neuron`` is ``IF`` with ``ATan(2)`` and
    ``detach_reset=False``, as in the paper that compares the two networks. To compare only the
    blocks, pass both the same ``neuron``.

    Source: Hu et al., "Spiking deep residual networks", 2021; used so in arXiv:2509.23762.
    """
    if options.get("neuron") is None:
        options["neuron"] = IF(surrogate=ATan(2.0), detach_reset=False)
    shape = (in_channels, image_size, image_size)
    return _resnet(_SpikingBlock, depth, stem, pool, width, shape, num_classes, T, options)


def _resnet(
    block: Callable[[list[nn.Module], list[nn.Module], Neuron | None], Temporal],
    depth: Depth,
    stem: Stem,
    pool: Pool | None,
    width: float,
    in_shape: tuple[int, int, int],
    num_classes: int,
    T: int,
    options: NetworkOptions,
) -> SNN:
    reject_unknown(options)
    neuron = options.get("neuron")
    in_channels, image_size, _ = in_shape
    if depth not in _BLOCKS:
        raise ValueError(f"ResNet: depth is 18, 34 or 50, got {depth!r}.")
    if min(in_channels, num_classes, image_size) < 1:
        raise ValueError(
            f"ResNet: sizes must be >= 1, got {in_channels} channels, image_size {image_size}, "
            f"{num_classes} classes."
        )
    first, *_ = widths = [scaled(w, width) for w in _WIDTHS]
    with quiet_construction():
        features, channels = _stem(stem, pool, in_channels, first, neuron), first
        for stage, (planes, blocks) in enumerate(zip(widths, _BLOCKS[depth], strict=True)):
            for number in range(blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                residual, out = _residual(channels, planes, stride, depth == 50, neuron)
                changes = stride != 1 or channels != out
                shortcut = _conv_norm(channels, out, 1, stride) if changes else []
                features.append(block(residual, shortcut, neuron))
                channels = out
        classifier: list[nn.Module] = [
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            *readout_layers(channels, num_classes, options.get("readout", "logits"), neuron),
        ]
    return assemble(
        {"features": TimeSequential(*features), "classifier": TimeSequential(*classifier)},
        T=T,
        num_classes=num_classes,
        in_shape=in_shape,
        options=options,
    )


def _stem(
    stem: Stem, pool: Pool | None, in_channels: int, channels: int, neuron: Neuron | None
) -> list[nn.Module]:
    if pool not in (None, "max", "avg"):
        raise ValueError(f"ResNet: pool is 'max' or 'avg', got {pool!r}.")
    if stem == "cifar":
        if pool is not None:
            raise ValueError(f"ResNet: the cifar stem has no pooling; leave out pool={pool!r}.")
        return [*_conv_norm(in_channels, channels, 3, 1), spiking(neuron)]
    if stem != "imagenet":
        raise ValueError(f"ResNet: stem is 'imagenet' or 'cifar', got {stem!r}.")
    pooling = nn.AvgPool2d(3, 2, 1) if pool == "avg" else nn.MaxPool2d(3, 2, 1)
    return [*_conv_norm(in_channels, channels, 7, 2), spiking(neuron), pooling]


def _residual(
    channels: int, planes: int, stride: int, bottleneck: bool, neuron: Neuron | None
) -> tuple[list[nn.Module], int]:
    """Return the layers of a residual branch up to its last normalisation, and their width."""
    if bottleneck:
        layers = _conv_norm(channels, planes, 1, 1), _conv_norm(planes, planes, 3, stride)
        last = _conv_norm(planes, 4 * planes, 1, 1)
        return [*layers[0], spiking(neuron), *layers[1], spiking(neuron), *last], 4 * planes
    first, last = _conv_norm(channels, planes, 3, stride), _conv_norm(planes, planes, 3, 1)
    return [*first, spiking(neuron), *last], planes


def _conv_norm(channels: int, out_channels: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]
