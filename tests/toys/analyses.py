"""Every analysis on a small network and a few images of noise."""

import inspect

import torch

from spikeguard.analysis import ANALYSES
from spikeguard.analysis.base import NotApplicable
from spikeguard.attacks import FGSM, Linf
from spikeguard.data import ImageSet
from spikeguard.models import CNN
from spikeguard.neurons import DLIF, NoisyLIF
from spikeguard.rng import stream


def network(neuron=None):
    """Return a small network whose layers fire, in train mode with one part in eval mode."""
    neuron = NoisyLIF(0.5, 0.3, v_th=0.3) if neuron is None else neuron
    model = CNN(1, 3, T=3, width=4, hidden=6, image_size=8, neuron=neuron, generator=stream(0, "w"))
    model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics")))
    model.features[1].eval()
    return model


def images(n=7):
    return ImageSet(
        torch.rand(n, 1, 8, 8, generator=stream(1, "x")), torch.arange(n) % 3, 3, "noise", 1.0
    )


def built(name, limit=6):
    """Return the analysis with its defaults, an FGSM attack and few images."""
    keys = inspect.signature(ANALYSES[name]).parameters
    given = {"attack": FGSM(Linf(0.1))} if "attack" in keys else {}
    return ANALYSES[name](**given, **({"limit": limit} if "limit" in keys else {}))


def measured(name, model=None, **options):
    """Return the measurement on the first network to which the analysis applies."""
    if model is not None:
        return built(name)(model, images(), **options)
    try:
        return built(name)(network(), images(), **options)
    except NotApplicable:
        return built(name)(network(DLIF(T=3)), images(), **options)
