"""Smoothed training: the noise it adds, the classifier it attacks, and its special cases."""

import math

import pytest
import torch
from torch import nn

from spikeguard.attacks import PGD, EoT, Linf
from spikeguard.defences import GaussianNoise, Objective, Smoothed, Vanilla
from spikeguard.encoders import Poisson
from spikeguard.models import CNN
from spikeguard.neurons import LIF
from spikeguard.rng import SampleStreams, normal, randomness, stream

X = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def small_cnn(**options):
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=LIF(0.5, v_th=0.3), **options)


def loss(piece, model):
    with randomness(model, stream(1, "noise")):
        return Objective.of(piece)(model, X, Y, progress=0.5, generator=stream(1, "o")).total


def test_without_noise_and_search_it_is_plain_training():
    assert torch.equal(loss(Smoothed(0.0), small_cnn()), loss(Vanilla(), small_cnn()))


def test_without_search_it_is_training_under_gaussian_noise():
    images = [
        piece(0.3).perturb(small_cnn(), X, Y, stream(2, "p")) for piece in (Smoothed, GaussianNoise)
    ]
    assert torch.equal(*images)
    assert abs((images[0] - X).std() - 0.3) < 5 * 0.3 / math.sqrt(2 * X.numel())


def test_without_noise_its_search_is_pgd_on_the_codings_of_a_poisson_network():
    model = small_cnn(encoder=Poisson())
    found = Smoothed(0.0, eps=0.1, steps=3, draws=2).perturb(model, X, Y, stream(2, "p"))
    pgd = PGD(Linf(0.1), steps=3, random_start=False, gradient=EoT(2))
    assert torch.equal(found, pgd(model, X, Y, generator=stream(2, "p")))


class Step(nn.Module):
    """Logits (0, 4 H(x1 - 0.8) + x2): the cliff is out of reach of a gradient without noise."""

    def forward(self, x):
        score = 4 * torch.sigmoid(1000 * (x[:, 0] - 0.8)) - x[:, 1]
        return torch.stack([torch.zeros_like(score), score], 1)


def test_the_search_climbs_the_smoothed_loss():
    """At 0.5 the cliff at 0.8 has no slope for one pass (e^-300); with noise of 0.3 it has."""
    x, y = torch.full((4, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    blind = Smoothed(0.0, eps=0.1, steps=2).perturb(Step(), x, y, stream(0, "a"))
    assert torch.equal(blind[:, 0], x[:, 0])
    generator, alike = stream(0, "a"), stream(0, "a")
    found = Smoothed(0.3, eps=0.1, steps=2, draws=400).perturb(Step(), x, y, generator)
    SampleStreams.of(alike, len(x))  # what the search takes from the stream
    noise = 0.3 * normal(alike, x.shape, dim=0)
    torch.testing.assert_close(found - noise, torch.tensor([[0.6, 0.4]]).expand(4, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -0.1}, "sigma is a standard deviation >= 0, got -0.1"),
        ({"eps": -0.1}, "eps is a radius >= 0 in input units, got -0.1"),
        ({"norm": "l7"}, "norm is one of"),
        ({"eps": 8.0}, "Smoothed: "),
        ({"draws": 0}, "draws must be >= 1, got 0"),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"step_size": 0.0}, "step_size must be positive, got 0"),
    ],
)
def test_settings_out_of_range_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        Smoothed(**settings)
