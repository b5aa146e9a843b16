"""Networks: each function returns an :class:`SNN`, a classifier ``model(x) -> logits``."""

from __future__ import annotations

from collections.abc import Callable

from spikeguard.models.feedforward import CNN, MLP, VGG5, VGG11
from spikeguard.models.operational import Dropout, OperationalCNN, OperationalMLP, SpikingVGG11
from spikeguard.models.resnet import WRN16_4
from spikeguard.models.sew import SEWResNet, SpikingResNet
from spikeguard.models.snn import SNN

__all__ = [
    "CNN",
    "MLP",
    "MODELS",
    "SNN",
    "VGG5",
    "VGG11",
    "WRN16_4",
    "Dropout",
    "OperationalCNN",
    "OperationalMLP",
    "SEWResNet",
    "SpikingResNet",
    "SpikingVGG11",
]

MODELS: dict[str, Callable[..., SNN]] = {
    "mlp": MLP,
    "cnn": CNN,
    "vgg5": VGG5,
    "vgg11": VGG11,
    "wrn16_4": WRN16_4,
    "sew_resnet": SEWResNet,
    "spiking_resnet": SpikingResNet,
    "spiking_vgg11": SpikingVGG11,
    "operational_mlp": OperationalMLP,
    "operational_cnn": OperationalCNN,
}
