"""RSC: mean, variance and independence of its noise; without noise it is direct coding."""

import math

import pytest
import torch

from spikeguard.encoders import Direct
from spikeguard.encoders.rsc import RSC
from spikeguard.models import CNN
from spikeguard.rng import SampleStreams, randomness, stream

X = torch.rand(4, 1, 8, 8, generator=stream(0, "x"))


def code(sigma, x, T):
    encoder = RSC(sigma)
    with randomness(encoder, SampleStreams(0, range(len(x)))):
        return encoder(x, T)


@pytest.mark.parametrize("pixel", [0.0, 0.4, 1.0])
def test_noise_has_mean_0_and_the_stated_variance_at_every_pixel_value(pixel):
    """Within 5 standard errors: sigma / sqrt(n) of the mean, sigma^2 sqrt(2 / n) of the variance.

    At 0 and 1 clipping would halve the noise and shift its mean by 0.4 sigma.
    """
    sigma, n = 0.25, 40_000
    noise = (code(sigma, torch.full((n // 8, 2), pixel), 4) - pixel).flatten().double()
    assert abs(noise.mean()) < 5 * sigma / math.sqrt(n)
    assert abs(noise.var() - sigma**2) < 5 * sigma**2 * math.sqrt(2 / n)


def test_steps_and_pixels_have_independent_noise():
    """The correlation of n independent pairs is within 5 / sqrt(n) of 0."""
    noise = code(1.0, torch.zeros(100, 30), 30)
    for a, b in ((noise[1:], noise[:-1]), (noise[:, :, 1:], noise[:, :, :-1])):
        assert abs((a * b).mean()) < 5 / math.sqrt(a.numel())


def test_without_noise_and_with_its_mean_it_is_direct_coding():
    assert torch.equal(code(0.0, X, 3), Direct()(X, 3))
    assert not RSC(0.0).stochastic and RSC(0.1).stochastic
    encoder = RSC(0.5)
    encoder.averaged = True
    assert torch.equal(encoder(X, 3), Direct()(X, 3))


def test_a_network_without_its_noise_is_the_direct_network_on_raw_pixels():
    rsc, direct = (CNN(1, 3, T=2, width=2, image_size=8, encoder=e) for e in (RSC(0.0), Direct()))
    assert torch.equal(rsc.eval()(X), direct.eval()(X))


@pytest.mark.parametrize("sigma", [-0.1, math.inf, math.nan])
def test_a_deviation_out_of_range_is_rejected(sigma):
    with pytest.raises(ValueError, match="RSC: sigma is a standard deviation >= 0, got"):
        RSC(sigma)
