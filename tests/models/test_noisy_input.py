"""NoisyInput: the stated noise, drawn per sample, in front of an unchanged network."""

import math

import pytest
import torch
from torch import nn

from spikeguard.attacks.model_access import is_stochastic
from spikeguard.encoders import EventFrames
from spikeguard.models import CNN
from spikeguard.models.noisy_input import NoisyInput
from spikeguard.rng import SampleStreams, randomness

X = torch.full((500, 40), 0.5)


def shown(sigma, x=X, ids=None):
    model = NoisyInput(nn.Identity(), sigma)
    with randomness(model, SampleStreams(0, range(len(x)) if ids is None else ids)):
        return model(x)


def test_the_noise_has_the_stated_deviation_and_is_not_clipped():
    """Within 5 standard errors of n draws."""
    noise, n = (shown(2.0) - X).double(), X.numel()
    assert abs(noise.mean()) < 5 * 2 / math.sqrt(n)
    assert abs(noise.std() - 2) < 5 * 2 / math.sqrt(2 * n)
    assert noise.max() > 4


def test_a_sample_has_the_same_noise_in_any_batch():
    assert torch.equal(shown(1.0, X[:2], [7, 3]), shown(1.0)[[7, 3]])


def test_without_noise_it_is_the_network():
    assert torch.equal(shown(0.0), X)
    assert is_stochastic(NoisyInput(nn.Identity(), 0.1))
    assert not is_stochastic(NoisyInput(nn.Identity(), 0.0))


def test_it_takes_the_inputs_of_the_network():
    model = CNN(2, 3, T=2, width=2, image_size=8, encoder=EventFrames())
    assert NoisyInput(model, 0.1).input_space == model.input_space


def test_a_negative_deviation_is_rejected():
    with pytest.raises(ValueError, match="NoisyInput: sigma is a standard deviation >= 0, got -1"):
        NoisyInput(nn.Identity(), -1.0)
