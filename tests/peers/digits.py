"""Two small networks trained on the digits in seconds, an ordinary and a spiking one."""

from functools import cache

import torch
from torch import nn

import spikeguard as sg
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream
from tests.toys.fitting import fitted

EPS = {"linf": 0.1, "l2": 0.8}
NETWORKS = ("ordinary", "spiking")


@cache
def trained(name):
    """Return the network, in evaluation mode, and 100 test images that it gets right."""
    data = sg.data.load("digits")
    generator = stream(0, "peers", name)
    if name == "spiking":
        neuron = LIF(0.5, surrogate=Triangular(1.0))
        model = sg.models.MLP(
            in_shape=(1, 8, 8),
            num_classes=10,
            T=4,
            hidden=(64,),
            neuron=neuron,
            generator=generator,
        )
    else:
        model = _ordinary(generator)
    fitted(model, data.train.batch(slice(None)), 6, generator)
    x, y = data.test.batch(slice(None))
    with torch.no_grad():
        right = model(x).argmax(1) == y
    assert right.double().mean() > 0.9
    return model, x[right][:100], y[right][:100]


def still_right(model, x, y):
    """Return the share of images that are classified rightly, as a number of [0, 1]."""
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def _ordinary(generator):
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    with torch.no_grad():
        for weight in model.parameters():
            bound = weight[0].numel() ** -0.5
            weight.copy_((2 * torch.rand(weight.shape, generator=generator) - 1) * bound)
    return model
