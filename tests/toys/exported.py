"""Networks, graphs and inputs for the tests of exports."""

import torch
from torch import nn

from spikeguard.export.folding import folded
from spikeguard.export.nir_file import to_nir
from spikeguard.export.verification import compare
from spikeguard.models import CNN, MLP
from spikeguard.models.snn import SNN, TimeSequential
from spikeguard.rng import stream


def single(*layers, T=4, in_shape=(2,), classes=None, **options):
    """Return a network of some layers, in evaluation mode."""
    stages = {"net": TimeSequential(*layers)}
    classes = in_shape[0] if classes is None else classes
    return SNN(stages, T=T, num_classes=classes, in_shape=in_shape, **options).eval()


def linear(weight, bias=None):
    """Return a linear layer with these weights."""
    weight = torch.as_tensor(weight, dtype=torch.float32)
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else torch.as_tensor(bias))
    return layer


def lively(model, x, scale=2.0):
    """Return a network with larger weights and statistics of its own, so that all layers fire."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.ndim > 1:
                weight.mul_(scale)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                generator = stream(0, "norm", norm.num_features)
                norm.weight.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
                norm.bias.copy_(torch.rand(norm.num_features, generator=generator) - 0.2)
                norm.momentum = 1.0
        model.train()(x)
    return model.eval()


def images(n=6, channels=1, size=8, name="images"):
    return torch.rand(n, channels, size, size, generator=stream(0, name))


def cnn(neuron=None, T=4, **options):
    """Return a small convolutional network whose layers fire."""
    return lively(
        CNN(1, 5, T=T, width=4, hidden=12, image_size=8, neuron=neuron, **options), images()
    )


def mlp(neuron=None, T=4, **options):
    return lively(
        MLP(64, 5, T, hidden=(20, 12), in_shape=(1, 8, 8), neuron=neuron, **options), images()
    )


def agreement(model, x):
    """Compare a network with its own graph."""
    graph = folded(model)
    return compare(to_nir(graph), model, x, {node.name: node.layer for node in graph.neurons()})
